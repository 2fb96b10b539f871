"""List images and masks on disk, pair them by name, read them, and check them all."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.data.lists import composed, group_of, read_datalist, read_groups
from sam2unet_core.errors import DataError
from sam2unet_core.media.image import image_files, read_mask, read_picture
from sam2unet_core.task import Task

LAYOUT = (
    "expected images/ and masks/ with files of the same name (the suffix may differ), "
    "or a MONAI data list (JSON)"
)


@dataclass(frozen=True)
class Sample:
    """One image with its mask.

    Attributes:
        image: the image file.
        mask: the mask file, or None if not needed.
        group: what a split must keep together (a patient, a sequence); defaults to the name.
        name: path of the image relative to its folder, without suffix, with `/`; unique and safe
            as an output name: without `..` and not absolute.
        fold: the fold that a data list assigns.
    """

    image: Path
    mask: Path | None
    group: str
    name: str
    fold: int | None = None


def read_dataset(
    dataset_dir: Path | str,
    *,
    datalist: Path | str | None = None,
    section: str = "training",
    groups: Path | str | None = None,
    masks: bool = True,
) -> list[Sample]:
    """List the samples of a data set, sorted by name, without opening an image.

    Args:
        dataset_dir: holds `images/` and `masks/` (or `labels/`), paired by relative path without
            suffix. With `masks` off, a folder of images is enough.
        datalist: MONAI data list to read instead; its paths are relative to `dataset_dir` or to
            the list.
        section: key of the data list, such as `training`, `validation` or `testing`.
        groups: CSV with the columns `name` and `group`.
        masks: whether every image needs a mask.

    Raises:
        DataError: no images, or names all unpaired, duplicate, missing or empty files.
    """
    folder = Path(dataset_dir)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {LAYOUT}")
    problems: list[str] = []
    if datalist is None:
        samples = _read_folders(folder, masks=masks, problems=problems)
    else:
        entries = read_datalist(datalist, section=section)
        samples = _read_entries(
            entries, folder=folder, datalist=datalist, masks=masks, problems=problems
        )
    if groups is not None:
        samples = _assign_groups(samples, groups, problems=problems)
    problems += _duplicates(samples) + _empty_files(samples)
    raise_problems(problems, source=str(datalist or folder))
    if not samples:
        raise DataError(f"{datalist or folder}: no images found; {LAYOUT}")
    return sorted(samples, key=lambda sample: sample.name)


def by_name(folder: Path, *, problems: list[str]) -> dict[str, Path]:
    """Return the image files below `folder` by relative path without suffix.

    Names are in Unicode's composed form, since macOS decomposes letters with accents.
    """
    found: dict[str, Path] = {}
    for path in image_files(folder):
        name = composed(path.relative_to(folder).with_suffix("").as_posix())
        if name in found:
            problems.append(f"{path}: same name as {found[name].name}, so a pair is ambiguous")
        found.setdefault(name, path)
    return found


def _read_folders(folder: Path, *, masks: bool, problems: list[str]) -> list[Sample]:
    images_dir = folder / "images"
    if not masks and not images_dir.is_dir():
        images_dir = folder
    masks_dir = next((p for p in (folder / "masks", folder / "labels") if p.is_dir()), None)
    if not images_dir.is_dir() or (masks and masks_dir is None):
        raise DataError(f"{folder}: {LAYOUT}")
    images = by_name(images_dir, problems=problems)
    if not masks or masks_dir is None:
        return [Sample(path, None, name, name) for name, path in images.items()]
    labels = by_name(masks_dir, problems=problems)
    problems += [f"{images[n]}: no mask called {n}" for n in images if n not in labels]
    problems += [f"{labels[n]}: no image called {n}" for n in labels if n not in images]
    return [Sample(images[n], labels[n], n, n) for n in images if n in labels]


def _read_entries(
    entries: Iterable[dict[str, Any]],
    *,
    folder: Path,
    datalist: Path | str,
    masks: bool,
    problems: list[str],
) -> list[Sample]:
    samples = []
    for entry in entries:
        image = _locate(entry["image"], folder=folder, datalist=datalist)
        label = entry.get("label")
        mask = _locate(label, folder=folder, datalist=datalist) if masks and label else None
        problems += [f"{p}: no such file" for p in (image, mask) if p and not p.is_file()]
        if masks and mask is None:
            problems.append(f"{image}: the data list gives no label for it")
        name = _output_name(image, folder)
        samples.append(Sample(image, mask, str(entry.get("group", name)), name, entry.get("fold")))
    return samples


def _locate(text: str, *, folder: Path, datalist: Path | str) -> Path:
    forms = dict.fromkeys((text, composed(text), unicodedata.normalize("NFD", text)))
    candidates = [root / form for form in forms for root in (folder, Path(datalist).parent)]
    return next((candidate for candidate in candidates if candidate.is_file()), candidates[0])


def _output_name(image: Path, folder: Path) -> str:
    """Return a relative name without `..`, also for an image outside of `folder`."""
    absolute, root = image.absolute(), folder.absolute()
    inside = absolute.is_relative_to(root) and ".." not in absolute.relative_to(root).parts
    path: PurePath = absolute.relative_to(root) if inside else image
    parts = [part for part in path.parts if part not in ("..", path.anchor)]
    return composed(PurePath(*parts).with_suffix("").as_posix())


def _assign_groups(samples: list[Sample], path: Path | str, *, problems: list[str]) -> list[Sample]:
    groups = read_groups(path)
    assigned = []
    for sample in samples:
        group = group_of(sample.name, groups)
        if group is None:
            problems.append(f"{sample.image}: no row in {path}")
        assigned.append(replace(sample, group=group or sample.name))
    return assigned


def _duplicates(samples: Iterable[Sample]) -> list[str]:
    first: dict[str, Path] = {}
    problems = []
    for sample in samples:
        if sample.name in first:
            problems.append(f"{sample.image}: same name as {first[sample.name]}")
        first.setdefault(sample.name, sample.image)
    return problems


def _empty_files(samples: Iterable[Sample]) -> list[str]:
    paths = [p for s in samples for p in (s.image, s.mask) if p is not None and p.is_file()]
    return [f"{p}: the file is empty (0 bytes)" for p in paths if p.stat().st_size == 0]


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


def read_sample(path: Path, task: Task) -> NDArray[np.uint8]:
    """Read an image as `sam2unet segment` feeds it to the network.

    Where that would guess the grey range with a warning, this raises an error: training must not
    depend on guesses that differ from image to image.

    Returns:
        The pixels, `(H, W, 3)` uint8 RGB.

    Raises:
        DataError: unreadable; more than 8 bits of unknown depth; or more than 8 bits for a task
            with a grey window, which needs values with a unit.
    """
    picture = read_picture(path, window=task.window)
    if picture.cautions:
        reasons = "; ".join(caution.message for caution in picture.cautions)
        raise DataError(
            f"{path}: {reasons}. Save the pictures with 8 bits, "
            + ("the window applied" if task.window else "or state their depth (PNG: sBIT)")
        )
    return picture.pixels


def raise_problems(problems: Sequence[str], *, source: str, most: int = 20) -> None:
    """Raise one DataError that lists the problems, if there are any."""
    if problems:
        shown = "".join(f"\n  {each}" for each in problems[:most])
        more = f"\n  and {len(problems) - most} more" if len(problems) > most else ""
        noun = "problem" if len(problems) == 1 else "problems"
        raise DataError(f"{source}: {len(problems)} {noun}, correct or remove:{shown}{more}")
