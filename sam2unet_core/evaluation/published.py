"""Published results of a task beside ours, and limits of the comparison."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from sam2unet_core.errors import TaskError
from sam2unet_core.evaluation.result import Evaluation
from sam2unet_core.task import Task


@dataclass(frozen=True)
class Comparison:
    """Published results beside ours.

    Attributes:
        source: of the published results.
        test_set: the published test set named by our folder, or None.
        published: metric values by test set.
        ours: our metric values; None if not measured.
        unverified: `SET.METRIC` of the published values not checked against the paper.
        notes: why the two may not be comparable.
    """

    source: str
    test_set: str | None
    published: dict[str, dict[str, float]]
    ours: dict[str, float | None]
    unverified: frozenset[str]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the content for JSON."""
        return {
            "source": self.source,
            "test_set": self.test_set,
            "published": self.published,
            "ours": self.ours,
            "unverified": sorted(self.unverified),
            "notes": list(self.notes),
        }

    def table(self) -> Table:
        """Return the comparison as a table: a row per published test set, then ours."""
        table = Table(title=f"Published ({self.source}) and ours")
        table.add_column("test set")
        for metric in self.ours:
            table.add_column(metric, justify="right")
        for name, results in self.published.items():
            cells = [self._published(name, metric, results.get(metric)) for metric in self.ours]
            table.add_row(name, *cells)
        table.add_section()
        cells = ["-" if value is None else f"{value:.3f}" for value in self.ours.values()]
        table.add_row("ours", *cells)
        return table

    def _published(self, name: str, metric: str, value: float | None) -> str:
        if value is None:
            return "-"
        return f"{value:.3f}" + ("*" if f"{name}.{metric}" in self.unverified else "")


def compare_with_paper(evaluation: Evaluation, task: Task, *, gt: Path | str) -> Comparison:
    """Compare an evaluation with the published results of `task`.

    The name of the folder of masks, `gt`, identifies the test set.

    Raises:
        TaskError: there are no published results for this task.
    """
    paper = task.paper
    if not paper.get("test_sets"):
        raise TaskError(
            f"the task {task.name} is not one of the paper's; choose from polyp, camouflaged, "
            "salient, marine_animal, mirror"
        )
    counts: dict[str, int] = paper["test_sets"]
    results: dict[str, dict[str, float]] = paper.get("results", {})
    measured = evaluation.summary.get("results", {})
    metrics = [str(each) for each in paper.get("metrics", [])]
    test_set = _test_set(Path(gt), list(counts))
    shown = {test_set: results[test_set]} if test_set in results else results
    unverified = frozenset(
        f"{name}.{metric}"
        for name, values in results.items()
        for metric in values
        if any(f".{each}".endswith(f".{name}.{metric}") for each in paper.get("unverified", []))
    )
    return Comparison(
        source=str(paper.get("source", "the paper")),
        test_set=test_set,
        published=shown,
        ours={metric: measured.get(metric) for metric in metrics},
        unverified=unverified,
        notes=tuple(_notes(evaluation, counts, test_set=test_set, gt=Path(gt), shown=shown)),
    )


def _notes(
    evaluation: Evaluation,
    counts: dict[str, int],
    *,
    test_set: str | None,
    gt: Path,
    shown: dict[str, dict[str, float]],
) -> list[str]:
    notes = []
    images = evaluation.summary["images"]
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    if test_set is None:
        notes.append(
            f"{gt} does not have the name of a published test set ({listed}): not the published "
            "split, so the rows are not comparable"
        )
    elif images != counts[test_set]:
        notes.append(
            f"{images} images, but the published test set {test_set} has {counts[test_set]}: not "
            "the published split, so the rows are not comparable"
        )
    else:
        notes.append(
            f"{images} images, as in the published test set {test_set}; whether they are the "
            "same ones is not checked"
        )
    if evaluation.protocol != "paper":
        notes.append(
            "published results follow the paper's protocol, ours the clinical one: evaluate "
            "probability maps with --protocol paper"
        )
    if not shown:
        notes.append("no published values are recorded for this task")
    return notes


def _test_set(gt: Path, known: list[str]) -> str | None:
    """Return the test set named in the folder's name or its parent's, or None."""
    folder = gt.resolve()
    for name in (folder.name, folder.parent.name):
        words = _words(name)
        matches = [each for each in known if _words(each) <= words]
        if matches:
            return max(matches, key=len)
    return None


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.lower()))
