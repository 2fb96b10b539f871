"""Evaluate predictions against masks, image by image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sam2unet_core.data import Sample, raise_problems
from sam2unet_core.errors import DataError
from sam2unet_core.evaluation.pairs import (
    Target,
    find_predictions,
    find_targets,
    match_targets,
    targets_of,
)
from sam2unet_core.evaluation.reading import (
    Case,
    OnProgress,
    choose_maps,
    choose_masks,
    read_cases,
    read_maps,
    with_threshold,
)
from sam2unet_core.evaluation.result import Evaluation, Row, summarise_clinical, summarise_paper
from sam2unet_core.metrics import PaperProtocol, score_class
from sam2unet_core.task import Task

Protocol = Literal["clinical", "paper"]


@dataclass(frozen=True)
class Options:
    """Options of the clinical protocol.

    Attributes:
        threshold: of probability maps; None uses the task's own, and prefers masks where both are
            there.
        spacing_mm: (row, column) pixel pitch in mm; None gives distances in pixels.
        lesion_iou: overlap at which a lesion counts as detected.
        seed: of the bootstrap.
        resamples: number of bootstrap resamples.
    """

    threshold: float | None = None
    spacing_mm: tuple[float, float] | None = None
    lesion_iou: float = 0.5
    seed: int = 0
    resamples: int = 2000


def evaluate_folders(
    pred: Path | str,
    gt: Path | str,
    *,
    task: Task,
    protocol: Protocol = "clinical",
    groups: Path | str | None = None,
    options: Options | None = None,
    progress: OnProgress | None = None,
) -> Evaluation:
    """Evaluate a folder of predictions against a folder of masks, paired by name.

    Args:
        pred: results of `sam2unet segment`, or files with the names of the masks: masks, or 8-bit
            or 16-bit grey probability maps.
        gt: a data set with `masks/`, or a folder of masks.
        task: the task.
        protocol: `clinical` evaluates masks, `paper` probability maps.
        groups: CSV with the columns `name` and `group`.
        options: of the clinical protocol.
        progress: called with (images done, total).

    Raises:
        DataError: names all masks without prediction and all files that cannot be read or differ
            in size; or masks where probability maps are needed.
    """
    targets = find_targets(Path(gt), groups=groups)
    return _evaluate(
        Path(pred),
        targets,
        task=task,
        protocol=protocol,
        options=options or Options(),
        progress=progress,
    )


def evaluate_samples(
    pred: Path | str,
    samples: Sequence[Sample],
    *,
    task: Task,
    protocol: Protocol = "clinical",
    options: Options | None = None,
    progress: OnProgress | None = None,
) -> Evaluation:
    """Evaluate a folder of predictions against the masks of `samples`; see `evaluate_folders`."""
    return _evaluate(
        Path(pred),
        targets_of(samples),
        task=task,
        protocol=protocol,
        options=options or Options(),
        progress=progress,
    )


def evaluate_arrays(
    cases: Iterable[Case], *, task: Task, options: Options | None = None
) -> Evaluation:
    """Evaluate masks in memory by the clinical protocol, one case at a time.

    Raises:
        DataError: no case, or cases whose prediction and mask differ in size.
    """
    options = options or Options()
    rows: list[Row] = []
    problems: list[str] = []
    for case in cases:
        if case.prediction.shape != case.truth.shape:
            problems.append(
                f"{case.name}: the prediction is {case.prediction.shape}, the mask "
                f"{case.truth.shape} (rows, columns)"
            )
            continue
        rows += _score(case, task=task, options=options)
    raise_problems(problems, source="predictions")
    if not rows:
        raise DataError("no image to measure")
    return summarise_clinical(
        rows,
        task=task,
        unit="px" if options.spacing_mm is None else "mm",
        seed=options.seed,
        resamples=options.resamples,
    )


def _score(case: Case, *, task: Task, options: Options) -> Iterator[Row]:
    unit = "px" if options.spacing_mm is None else "mm"
    for each in task.classes:
        found = score_class(
            case.prediction == each.value,
            case.truth == each.value,
            spacing_mm=options.spacing_mm,
            lesion_iou=options.lesion_iou,
        )
        yield {
            "name": case.name,
            "group": case.group,
            "class": each.name,
            "dice": found.dice,
            "iou": found.iou,
            "precision": found.precision,
            "recall": found.recall,
            "specificity": found.specificity,
            f"hd95_{unit}": found.hd95,
            f"assd_{unit}": found.assd,
            "share": float((case.truth == each.value).mean()),
            "in_mask": int(found.truth),
            "in_prediction": int(found.predicted),
            "lesions": found.lesions.truth,
            "lesions_predicted": found.lesions.predicted,
            "lesions_detected": found.lesions.detected,
            "lesions_false": found.lesions.false,
        }


def _evaluate(
    pred: Path,
    targets: list[Target],
    *,
    task: Task,
    protocol: Protocol,
    options: Options,
    progress: OnProgress | None,
) -> Evaluation:
    found = find_predictions(pred)
    if protocol == "paper":
        source = choose_maps(found, task=task, pred=pred)
        pairs, unused = match_targets(targets, source.files, pred=pred)
        result = _measure_paper(pairs, task=task, progress=progress)
    elif protocol == "clinical":
        task = with_threshold(task, options.threshold)
        source = choose_masks(found, task=task, threshold=options.threshold, pred=pred)
        pairs, unused = match_targets(targets, source.files, pred=pred)
        cases = read_cases(pairs, task=task, probabilities=source.probabilities, progress=progress)
        result = evaluate_arrays(cases, task=task, options=options)
    else:
        raise DataError(f"unknown protocol {protocol!r}; choose from clinical, paper")
    if unused:
        names = ", ".join(unused[:5]) + (", ..." if len(unused) > 5 else "")
        result = result.with_note(
            f"{len(unused)} predictions have no mask and were not measured: {names}"
        )
    return result


def _measure_paper(
    pairs: Sequence[tuple[Target, Sequence[Path]]], *, task: Task, progress: OnProgress | None
) -> Evaluation:
    protocol = PaperProtocol()
    rows: list[Row] = []
    empty = 0
    for target, probability, truth in read_maps(pairs, task=task, progress=progress):
        scores = protocol.add(probability, truth)
        rows.append({"name": target.name, "group": target.group, **scores})
        empty += not truth.any()
    return summarise_paper(rows, protocol.results(), task=task, empty=empty)
