"""Pair masks with predictions by name; a mask without a prediction is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

from sam2unet_core.data import Sample, group_of, raise_problems, read_groups
from sam2unet_core.data.lists import composed
from sam2unet_core.data.samples import by_name
from sam2unet_core.errors import DataError
from sam2unet_core.media.image import IMAGE_SUFFIXES, image_files
from sam2unet_core.media.opening import SUPPORTED_FORMATS

T = TypeVar("T")
_ENDINGS = re.compile(r"(?P<image>.+)\.(?:mask|overlay|prob(?P<value>\d+))\.png", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """One reference mask.

    Attributes:
        name: relative path without suffix.
        group: unit of the bootstrap, such as a patient.
        mask: the file.
    """

    name: str
    group: str
    mask: Path


@dataclass
class Predictions:
    """The files of a folder of predictions, by relative path of the image without suffix.

    Attributes:
        masks: `NAME.mask.png`.
        probabilities: `NAME.prob<k>.png`, by k.
        plain: files with the name of the image, masks or probability maps.
    """

    masks: dict[str, Path] = field(default_factory=dict)
    probabilities: dict[str, dict[int, Path]] = field(default_factory=dict)
    plain: dict[str, Path] = field(default_factory=dict)


def find_targets(gt: Path, *, groups: Path | str | None) -> list[Target]:
    """List the masks below `gt`: a data set (its `masks/` or `labels/`) or a folder of masks.

    Raises:
        DataError: no masks, duplicate names, or a mask missing from `groups`.
    """
    if not gt.is_dir():
        raise DataError(f"{gt}: no such folder of masks")
    folder = next((p for p in (gt / "masks", gt / "labels") if p.is_dir()), gt)
    problems: list[str] = []
    masks = by_name(folder, problems=problems)
    group_names = read_groups(groups) if groups is not None else {}
    targets = []
    for name, path in masks.items():
        group = group_of(name, group_names) if groups is not None else name
        if group is None:
            problems.append(f"{path}: no row in {groups}")
        targets.append(Target(name, group or name, path))
    raise_problems(problems, source=str(folder))
    if not targets:
        raise DataError(f"{folder}: no masks found ({SUPPORTED_FORMATS})")
    return targets


def targets_of(samples: Sequence[Sample]) -> list[Target]:
    """Return the masks of `samples`; raise DataError if a sample has none."""
    problems = [f"{each.image}: no mask" for each in samples if each.mask is None]
    raise_problems(problems, source=f"{len(samples)} samples")
    return [Target(s.name, s.group, s.mask) for s in samples if s.mask is not None]


def find_predictions(pred: Path) -> Predictions:
    """List the predictions below `pred`, named by `sam2unet segment` or like the images.

    Raises:
        DataError: no such folder, no image in it, or two files for one name.
    """
    if not pred.is_dir():
        raise DataError(f"{pred}: no such folder of predictions")
    found = Predictions()
    problems: list[str] = []
    files = image_files(pred)
    for path in files:
        relative = path.relative_to(pred).as_posix()
        match = _ENDINGS.fullmatch(relative)
        name = _without_suffix(match["image"] if match else relative)
        if match is None:
            duplicate = found.plain.setdefault(name, path) != path
        elif match["value"]:
            of_name = found.probabilities.setdefault(name, {})
            duplicate = of_name.setdefault(int(match["value"]), path) != path
        else:
            is_mask = relative.lower().endswith(".mask.png")
            duplicate = is_mask and found.masks.setdefault(name, path) != path
        if duplicate:
            problems.append(f"{path}: a second prediction for {name}")
    raise_problems(problems, source=str(pred))
    if not files:
        raise DataError(f"{pred}: no predictions found ({SUPPORTED_FORMATS})")
    return found


def match_targets(
    targets: Sequence[Target], predictions: Mapping[str, T], *, pred: Path
) -> tuple[list[tuple[Target, T]], list[str]]:
    """Pair every target with its prediction.

    If a whole data set was segmented, predictions lie below `images/`, `masks/` or
    `masks/images/`; if only its `images/` were, the targets may be named with that folder.

    Returns:
        The pairs, and the names of predictions without a target.

    Raises:
        DataError: names all targets without a prediction.
    """
    prefixes = ("", "images/", "masks/", "masks/images/")
    names = {target.name for target in targets}
    views = [_below(predictions, prefix) for prefix in prefixes]
    views.append({f"images/{name}": value for name, value in predictions.items()})
    known = max(views, key=lambda view: len(names & view.keys()))
    problems = [f"{t.mask}: no prediction for {t.name}" for t in targets if t.name not in known]
    raise_problems(problems, source=str(pred))
    pairs = [(target, known[target.name]) for target in targets]
    return pairs, sorted(known.keys() - names)


def _below(predictions: Mapping[str, T], prefix: str) -> dict[str, T]:
    return {k.removeprefix(prefix): v for k, v in predictions.items() if k.startswith(prefix)}


def _without_suffix(name: str) -> str:
    path = PurePosixPath(composed(name))
    return str(path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path)
