"""Writes summary.csv and report.html from the manifest."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sam2unet_core.batch.folder import (
    Line,
    Manifest,
    Status,
    merge_manifests,
    merge_records,
    merging,
    read_record,
    shard_manifests,
)
from sam2unet_core.batch.units import PrivateFolder, Unit
from sam2unet_core.files import write_bytes
from sam2unet_core.report import Entry, Failure, Page, render
from sam2unet_core.report.findings import Findings
from sam2unet_core.types import Kind

COLUMNS = (
    "name",
    "study",
    "series",
    "kind",
    "modality",
    "status",
    "class",
    "frames",
    "frames_with_findings",
    "largest_area_px",
    "largest_area_mm2",
    "mean_confidence",
)


def entry_of(
    unit: Unit, findings: Findings, *, outputs: Iterable[str], cautions: Iterable[str] = ()
) -> Entry:
    """Return the report entry of a unit; `cautions` are added to the series' warnings."""
    series = unit.series
    folder = Path(unit.base).parent.as_posix() if series.kind == Kind.IMAGES else unit.base
    return Entry(
        name=unit.base,
        group="" if folder == "." else folder,
        kind=series.kind,
        findings=findings,
        modality=series.modality,
        spacing_mm=series.spacing_mm,
        spacing_note=series.spacing_note,
        burned_in=series.burned_in if unit.dicom else False,
        warnings=(*series.warnings, *cautions),
        video=next((path for path in outputs if path.endswith(".mp4")), None),
    )


def write_summary(out: Path, *, settings_hash: str | None = None) -> None:
    """Write summary.csv and report.html, and tidy the table of sources.

    The manifests and records of shards are merged first.

    Args:
        out: the results folder.
        settings_hash: merge only records with this hash of their settings.
    """
    with merging(out):
        if shard_manifests(out):
            merge_manifests(out)
            merge_records(out, settings_hash=settings_hash)
        private = PrivateFolder(out)
        private.tidy()
        lines = Manifest(out).lines
        found = {
            key: entry
            for key, line in lines.items()
            if line.status is not Status.SKIPPED and (entry := private.load_entry(line.id))
        }
        write_bytes(out / "summary.csv", _table(found, lines).encode())
        page = _page(out, list(lines.values()), list(found.values()))
        write_bytes(out / "report.html", render(page).encode())


def absorb_shards(out: Path) -> None:
    """Merge the files of shards into the folder's own files; no shard may be running."""
    if not shard_manifests(out):
        return
    merge_manifests(out)
    PrivateFolder(out).tidy()
    for pattern in ("manifest.*-of-*.jsonl", "run.*-of-*.json", "private/sources.*-of-*.csv"):
        for path in out.glob(pattern):
            path.unlink()


def _table(found: dict[str, Entry], lines: dict[str, Line]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for identity, entry in sorted(found.items(), key=lambda each: (each[1].name, each[0])):
        line, pixel = lines[identity], entry.pixel_mm2
        for each in entry.findings.classes:
            writer.writerow(
                {
                    "name": entry.name,
                    "study": line.study,
                    "series": line.series,
                    "kind": entry.kind,
                    "modality": entry.modality,
                    "status": "done" if entry.findings.frames_with_findings else "empty",
                    "class": each.name,
                    "frames": entry.findings.frames,
                    "frames_with_findings": each.frames,
                    "largest_area_px": each.largest_px,
                    "largest_area_mm2": "" if pixel is None else f"{each.largest_px * pixel:.6g}",
                    "mean_confidence": "" if each.frames == 0 else each.mean_confidence,
                }
            )
    return text.getvalue()


def _page(out: Path, lines: list[Line], entries: list[Entry]) -> Page:
    record = read_record(out)
    task = record.get("task", {})
    failed = [line for line in lines if line.status is Status.FAILED]
    return Page(
        title=str(task.get("title", "Segmentation")),
        entries=entries,
        statuses=dict(Counter(line.status for line in lines)),
        reasons=dict(Counter(line.reason for line in lines if line.reason)),
        failures=[Failure(line.id, line.reason or "", line.message) for line in failed],
        facts=_facts(record),
        forced=bool(record.get("settings", {}).get("force_task")),
    )


def _facts(record: dict[str, Any]) -> list[tuple[str, str]]:
    task, model = record.get("task", {}), record.get("model", {})
    settings = record.get("settings", {})
    versions = record.get("versions", {})
    return [
        ("Task", f"{task.get('name')} {task.get('version')}"),
        ("Classes", ", ".join(str(item["label"]) for item in task.get("classes", []))),
        ("Threshold", f"{task.get('threshold')} (a pixel belongs to a class at or above it)"),
        ("Weights, sha256", str(model.get("weights_sha256"))),
        ("Runtime", f"{model.get('runtime')}, {model.get('precision')}"),
        ("Settings", ", ".join(f"{key} {_value(settings[key])}" for key in settings)),
        ("Versions", ", ".join(f"{name} {value}" for name, value in versions.items())),
        ("Started", str(record.get("started"))),
        ("Use", str(model.get("note"))),
    ]


def _value(value: object) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    if value is None or isinstance(value, bool):
        return "yes" if value else "none" if value is None else "no"
    return str(value)
