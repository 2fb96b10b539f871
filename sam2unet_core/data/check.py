"""Check a data set by opening every image and mask once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from sam2unet_core.data.pixels import read_sample
from sam2unet_core.data.problems import raise_problems
from sam2unet_core.data.samples import Sample
from sam2unet_core.errors import DataError
from sam2unet_core.media.image import read_mask
from sam2unet_core.task import Task


def check_samples(
    samples: Sequence[Sample],
    task: Task,
    *,
    needs_foreground: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Open every image and mask once, so that no file can fail later.

    Args:
        samples: from `read_dataset`.
        task: gives the classes that the masks may contain.
        needs_foreground: refuse a set whose masks are all empty; off for evaluation.
        progress: called with (samples done, total) from the calling thread.

    Raises:
        DataError: names all files that cannot be read or do not match; or all masks are empty.
    """

    def check(sample: Sample) -> tuple[list[str], bool]:
        return _check_sample(sample, task)

    problems: list[str] = []
    foreground = False
    with ThreadPoolExecutor() as pool:
        for done, (found, has_foreground) in enumerate(pool.map(check, samples), start=1):
            problems += found
            foreground = foreground or has_foreground
            if progress is not None:
                progress(done, len(samples))
    raise_problems(problems, source=f"{len(samples)} samples")
    masks = [sample.mask for sample in samples if sample.mask is not None]
    if masks and needs_foreground and not foreground:
        raise DataError(
            f"all {len(masks)} masks are empty, such as {masks[0]}: no pixels of "
            f"{', '.join(each.name for each in task.classes)}; check how the masks are stored"
        )


def _check_sample(sample: Sample, task: Task) -> tuple[list[str], bool]:
    """Return the problems of a sample, and whether its mask has foreground."""
    problems: list[str] = []
    size: tuple[int, ...] | None = None
    try:
        size = read_sample(sample.image, task).shape[:2]
    except DataError as error:
        problems.append(str(error))
    if sample.mask is None:
        return problems, False
    try:
        labels = read_mask(sample.mask, task.classes)
    except DataError as error:
        return [*problems, str(error)], False
    if size is not None and labels.shape != size:
        rotated = " (rotated: check the EXIF orientation)" if labels.shape == size[::-1] else ""
        problems.append(
            f"{sample.mask}: {labels.shape[0]}x{labels.shape[1]} pixels (rows x columns), its "
            f"image {size[0]}x{size[1]}{rotated}"
        )
    return problems, bool(labels.any())
