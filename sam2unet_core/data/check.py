"""Every image and mask opened once, before anything runs on them."""

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
    """Open every image and mask once, so that nothing can fail later for the files' sake.

    Args:
        samples: what `read_dataset` listed.
        task: names the classes that the masks may hold.
        needs_foreground: refuse a set whose masks are all empty; off to measure on such a set.
        progress: called with (files done, files in all) from the calling thread.

    Raises:
        DataError: files that cannot be read or do not fit, all named, or masks without any
            foreground throughout.
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
            f"all {len(masks)} masks are empty ({masks[0]} and the others): there is nothing to "
            f"learn for {', '.join(each.name for each in task.classes)}; check how they are stored"
        )


def _check_sample(sample: Sample, task: Task) -> tuple[list[str], bool]:
    """Return what is wrong with a sample, and whether its mask has foreground."""
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
        turned = " (turned: check the EXIF orientation)" if labels.shape == size[::-1] else ""
        problems.append(
            f"{sample.mask}: {labels.shape[0]}x{labels.shape[1]} pixels (rows x columns), its "
            f"image {size[0]}x{size[1]}{turned}"
        )
    return problems, bool(labels.any())
