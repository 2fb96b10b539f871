"""Read prediction and mask files into the arrays that the protocols evaluate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.data import raise_problems
from sam2unet_core.errors import DataError
from sam2unet_core.evaluation.pairs import Predictions, Target
from sam2unet_core.inference.transforms import label_map
from sam2unet_core.media.image import is_soft_map, read_mask, read_probability
from sam2unet_core.task import Task

OnProgress = Callable[[int, int], None]
Labels = NDArray[np.uint8]
Reader = Callable[[Path], Labels]
T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """One image to evaluate.

    Attributes:
        name: of the image.
        group: unit of the bootstrap, such as a patient.
        prediction: `(H, W)` uint8 class indices.
        truth: `(H, W)` uint8 class indices.
    """

    name: str
    group: str
    prediction: NDArray[np.uint8]
    truth: NDArray[np.uint8]


@dataclass(frozen=True)
class PredictionFiles:
    """Files to read predictions from.

    Attributes:
        files: files of each prediction by name; probability maps in the order of the classes.
        probabilities: whether they are probability maps.
    """

    files: Mapping[str, Sequence[Path]]
    probabilities: bool


def choose_masks(
    found: Predictions, *, task: Task, threshold: float | None, pred: Path
) -> PredictionFiles:
    """Choose the files for the clinical protocol: masks, or probability maps for a threshold.

    Raises:
        DataError: a threshold for masks, or a class without a map.
    """
    if found.masks and threshold is None:
        return PredictionFiles({name: [path] for name, path in found.masks.items()}, False)
    if found.probabilities:
        return PredictionFiles(_maps_by_class(found, task=task), True)
    soft = task.num_classes == 1 and any(is_soft_map(path) for path in found.plain.values())
    if threshold is not None and not soft:
        raise DataError(
            f"{pred}: holds masks, so the threshold {threshold:g} has nothing to act on; write "
            "probability maps, or omit the threshold"
        )
    return PredictionFiles({name: [path] for name, path in found.plain.items()}, soft)


def choose_maps(found: Predictions, *, task: Task, pred: Path) -> PredictionFiles:
    """Choose the files for the paper's protocol: probability maps, never masks.

    Raises:
        DataError: there are only masks, or the task has several classes.
    """
    if task.num_classes != 1:
        raise DataError(
            f"the paper's protocol evaluates one class, {task.name} has {task.num_classes}; use "
            "the clinical protocol"
        )
    if found.probabilities:
        return PredictionFiles(_maps_by_class(found, task=task), True)
    if not any(is_soft_map(path) for path in found.plain.values()):
        raise DataError(
            f"{pred}: every prediction is a mask (at most two values, a palette or a JPEG); the "
            "paper's protocol averages over 256 thresholds and needs probability maps in 16-bit "
            "or 8-bit grey PNG (the format `probabilities`). For masks use the clinical protocol"
        )
    return PredictionFiles({name: [path] for name, path in found.plain.items()}, True)


def read_cases(
    pairs: Sequence[tuple[Target, Sequence[Path]]],
    *,
    task: Task,
    probabilities: bool,
    progress: OnProgress | None,
) -> Iterator[Case]:
    """Read pairs one by one; problems are raised together at the end."""

    def read(target: Target, files: Sequence[Path]) -> Case:
        truth = read_mask(target.mask, task.classes)
        if probabilities:
            prediction = label_map(np.stack([read_probability(path) for path in files]), task)
        else:
            prediction = read_mask(files[0], task.classes)
        if prediction.shape != truth.shape:
            raise DataError(
                f"{files[0]}: {_size(prediction)}, the mask {target.mask} {_size(truth)} (rows x "
                "columns); write predictions at the size of the frames"
            )
        return Case(target.name, target.group, prediction, truth)

    return _read_all(pairs, read, progress=progress)


def read_maps(
    pairs: Sequence[tuple[Target, Sequence[Path]]], *, task: Task, progress: OnProgress | None
) -> Iterator[tuple[Target, NDArray[np.float32], NDArray[np.bool_]]]:
    """Read (target, probability map, mask) one by one; problems are raised together at the end."""

    def read(
        target: Target, files: Sequence[Path]
    ) -> tuple[Target, NDArray[np.float32], NDArray[np.bool_]]:
        return target, read_probability(files[0]), _positive(target.mask, task)

    return _read_all(pairs, read, progress=progress)


def with_threshold(task: Task, threshold: float | None) -> Task:
    """Return the task with another threshold, if given; raise DataError outside 0 to 1."""
    if threshold is None:
        return task
    if not 0 < threshold < 1:
        raise DataError(f"the threshold is {threshold:g}, expected between 0 and 1")
    return task.with_threshold(threshold)


def _read_all(
    pairs: Sequence[tuple[Target, Sequence[Path]]],
    read: Callable[[Target, Sequence[Path]], T],
    *,
    progress: OnProgress | None,
) -> Iterator[T]:
    problems: list[str] = []
    for done, (target, files) in enumerate(pairs, start=1):
        try:
            yield read(target, files)
        except DataError as error:
            problems.append(str(error))
        if progress is not None:
            progress(done, len(pairs))
    raise_problems(problems, source=f"{len(pairs)} predictions")


def _positive(path: Path, task: Task) -> NDArray[np.bool_]:
    """Return the mask by the rule of the paper's protocol: grey above 128."""
    labels = read_mask(path, task.classes)
    try:
        grey = np.rint(read_probability(path) * 255)
    except DataError:
        return labels > 0
    found: NDArray[np.bool_] = grey > 128 if grey.max() > 128 else labels > 0
    return found


def _maps_by_class(found: Predictions, *, task: Task) -> dict[str, list[Path]]:
    wanted = [each.value for each in task.classes]
    problems = [
        f"{name}: probability maps of the classes {sorted(maps)}, expected {wanted}"
        for name, maps in found.probabilities.items()
        if sorted(maps) != wanted
    ]
    raise_problems(problems, source="probability maps")
    return {name: [maps[value] for value in wanted] for name, maps in found.probabilities.items()}


def _size(labels: Labels) -> str:
    return f"{labels.shape[0]}x{labels.shape[1]}"
