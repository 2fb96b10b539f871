"""Results of an evaluation: a row per image and class, a summary, tables and files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from sam2unet_core.files import write_bytes
from sam2unet_core.metrics import Summary, ratio, summarise
from sam2unet_core.task import Task

_TITLES = {
    "dice": "Dice, all images",
    "iou": "IoU, all images",
    "dice_with_lesion": "Dice, images with the class",
    "iou_with_lesion": "IoU, images with the class",
    "precision": "Precision",
    "recall": "Recall",
    "specificity": "Specificity",
    "hd95_px": "Hausdorff 95 %, pixels",
    "hd95_mm": "Hausdorff 95 %, mm",
    "assd_px": "Mean surface distance, pixels",
    "assd_mm": "Mean surface distance, mm",
    "lesion_sensitivity": "Lesions detected (sensitivity)",
    "lesion_precision": "Predicted lesions that are real (precision)",
    "false_lesions_per_image": "False lesions per image",
}


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation.

    Attributes:
        protocol: `clinical` or `paper`.
        rows: one per image and class; NaN where a score is undefined.
        summary: content of `summary.json`, NaN as None.
        notes: caveats for the reader.
    """

    protocol: str
    rows: tuple[Row, ...]
    summary: dict[str, Any]
    notes: tuple[str, ...] = ()

    def with_note(self, note: str) -> Evaluation:
        """Return the evaluation with one more note."""
        return replace(self, notes=(*self.notes, note))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `summary.json`."""
        return {**self.summary, "notes": list(self.notes)}

    def table(self) -> Table:
        """Return the summary as a table."""
        return _clinical_table(self) if self.protocol == "clinical" else _paper_table(self)

    def write(self, folder: Path | str) -> list[Path]:
        """Write `metrics.csv` and `summary.json` into `folder`; return the two paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: _cell(v) for k, v in row.items()} for row in self.rows)
        summary = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        files = [folder / "metrics.csv", folder / "summary.json"]
        write_bytes(files[0], text.getvalue().encode())
        write_bytes(files[1], (summary + "\n").encode())
        return files


def summarise_clinical(
    rows: Sequence[Row], *, task: Task, unit: str, seed: int, resamples: int
) -> Evaluation:
    """Summarise clinical scores by class; distances are in `unit`, `mm` or `px`."""
    classes = {
        each.name: _class_summary(
            [row for row in rows if row["class"] == each.name],
            unit=unit,
            seed=seed,
            resamples=resamples,
        )
        for each in task.classes
    }
    summary = {
        "protocol": "clinical",
        "task": task.name,
        "images": len({row["name"] for row in rows}),
        "groups": len({row["group"] for row in rows}),
        "distance_unit": unit,
        "interval": f"95 % percentile bootstrap over groups, {resamples} resamples, seed {seed}",
        "classes": classes,
    }
    return Evaluation("clinical", tuple(rows), summary)


def summarise_paper(
    rows: Sequence[Row], results: dict[str, float], *, task: Task, empty: int
) -> Evaluation:
    """Return the results of the paper's protocol; `empty` is the number of empty masks."""
    notes: list[str] = []
    if empty:
        notes.append(
            f"{empty} of {len(rows)} masks are empty: this protocol stretches every map to its own "
            "range, so these images always show a finding; use the clinical protocol for them"
        )
    summary = {
        "protocol": "paper",
        "task": task.name,
        "images": len(rows),
        "images_without_object": empty,
        "results": {k: _number(v) for k, v in results.items()},
    }
    return Evaluation("paper", tuple(rows), summary, tuple(notes))


def _class_summary(rows: Sequence[Row], *, unit: str, seed: int, resamples: int) -> dict[str, Any]:
    present = [row for row in rows if row["in_mask"]]
    absent = [row for row in rows if not row["in_mask"]]
    false = [row for row in absent if row["in_prediction"]]

    def scores(name: str, among: Sequence[Row]) -> Summary:
        return summarise(
            [float(r[name]) for r in among],
            [str(r["group"]) for r in among],
            seed=seed,
            resamples=resamples,
        )

    def rate(part: str, whole: str | None) -> Summary:
        return ratio(
            [float(r[part]) for r in rows],
            [int(r[whole]) if whole else 1 for r in rows],
            [str(r["group"]) for r in rows],
            seed=seed,
            resamples=resamples,
        )

    names = ["dice", "iou", "precision", "recall", "specificity", f"hd95_{unit}", f"assd_{unit}"]
    found = {name: scores(name, rows) for name in names}
    found["dice_with_lesion"] = scores("dice", present)
    found["iou_with_lesion"] = scores("iou", present)
    found["lesion_sensitivity"] = rate("lesions_detected", "lesions")
    found["lesion_precision"] = rate("lesions_detected", "lesions_predicted")
    found["false_lesions_per_image"] = rate("lesions_false", None)
    return {
        "images": len(rows),
        "with_lesion": {
            "images": len(present),
            "missed_altogether": sum(not row["in_prediction"] for row in present),
        },
        "without_lesion": {
            "images": len(absent),
            "empty_as_they_should": len(absent) - len(false),
            "with_false_finding": len(false),
        },
        "scores": {name: _numbers(found[name]) for name in _TITLES if name in found},
        **{
            key: {
                name: _stratum_summary([r for r in rows if each.holds(r)], summary_of=scores)
                for name, each in strata.items()
            }
            for key, strata in STRATA.items()
        },
    }


def _stratum_summary(
    rows: Sequence[Row], *, summary_of: Callable[[str, Sequence[Row]], Summary]
) -> dict[str, Any]:
    found = {name: _numbers(summary_of(name, rows)) for name in ("dice", "iou")}
    return {"images": len(rows), "scores": found}


def _clinical_table(evaluation: Evaluation) -> Table:
    summary = evaluation.summary
    table = Table(
        title=f"{summary['task']}: {summary['images']} images in {summary['groups']} groups",
        caption="interval: " + summary["interval"],
    )
    table.add_column("class")
    table.add_column("score")
    for heading in ("mean", "95 % interval", "median", "n"):
        table.add_column(heading, justify="right")
    for name, found in summary["classes"].items():
        for score, values in found["scores"].items():
            table.add_row(name, _TITLES[score], *_cells(values))
        for key, strata in STRATA.items():
            for stratum, each in strata.items():
                if found[key][stratum]["images"]:
                    values = found[key][stratum]["scores"]["dice"]
                    table.add_row(name, f"Dice, {each.title}", *_cells(values))
        without, present = found["without_lesion"], found["with_lesion"]
        missed = f"{present['missed_altogether']} of {present['images']}"
        table.add_row(name, "Images with the class, nothing predicted", missed, "", "", "")
        false = f"{without['with_false_finding']} of {without['images']}"
        table.add_row(name, "Images without the class, false finding", false, "", "", "")
        table.add_section()
    return table


def _cells(values: dict[str, Any]) -> tuple[str, str, str, str]:
    interval = f"{_formatted(values['low'])} to {_formatted(values['high'])}"
    return (
        _formatted(values["mean"]),
        interval if values["low"] is not None else "-",
        _formatted(values["median"]),
        str(values["count"]),
    )


def _paper_table(evaluation: Evaluation) -> Table:
    summary = evaluation.summary
    table = Table(title=f"{summary['task']}, paper's protocol: {summary['images']} images")
    for name in summary["results"]:
        table.add_column(name, justify="right")
    table.add_row(*(_formatted(value) for value in summary["results"].values()))
    return table


def _numbers(found: Summary) -> dict[str, float | None]:
    return {name: _number(value) for name, value in asdict(found).items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _cell(value: str | float) -> str | float:
    return "" if isinstance(value, float) and math.isnan(value) else value


def _formatted(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


SMALL = 0.05
LARGE = 0.2
"""Share of the frame below which a class is small, and above which it is large."""

Row = dict[str, str | float]


@dataclass(frozen=True)
class Stratum:
    """A subset of the images that show a class.

    Attributes:
        title: what the images have in common.
        holds: whether a row of `metrics.csv` belongs to it.
    """

    title: str
    holds: Callable[[Row], bool]


STRATA: dict[str, dict[str, Stratum]] = {
    "by_size": {
        "small": Stratum("below 5 % of the frame", lambda row: 0 < _share(row) < SMALL),
        "medium": Stratum("5 to 20 % of the frame", lambda row: SMALL <= _share(row) <= LARGE),
        "large": Stratum("above 20 % of the frame", lambda row: _share(row) > LARGE),
    },
    "by_number": {
        "one": Stratum("one lesion", lambda row: row["lesions"] == 1),
        "several": Stratum("several lesions", lambda row: float(row["lesions"]) > 1),
    },
}
"""Partitions of the images that show a class, by their key in `summary.json`."""


def _share(row: Row) -> float:
    return float(row["share"])
