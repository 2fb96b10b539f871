"""report.html: one self-contained page, for desktop and phone."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from sam2unet_core.report.findings import Entry, Findings, Thumbnail, by_group

MAX_PAGE_THUMBNAILS = 600
"""Thumbnails on one page, which keeps it at about 10 MB."""
MAX_BARS = 240
MAX_FAILURES = 200
NO_VALUE = "\N{EN DASH}"


@dataclass(frozen=True)
class Failure:
    """An input that could not be used."""

    id: str
    reason: str
    message: str


@dataclass(frozen=True)
class Page:
    """Content of the report.

    Attributes:
        title: title of the task.
        entries: the series.
        statuses: number of inputs by status.
        reasons: number of inputs without results, by reason.
        failures: the inputs that failed.
        facts: model, version, hashes and settings, as name and value.
        forced: whether the task was forced on sources it does not accept.
    """

    title: str
    entries: Sequence[Entry]
    statuses: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    failures: Sequence[Failure] = ()
    facts: Sequence[tuple[str, str]] = ()
    forced: bool = False


@dataclass(frozen=True)
class Bar:
    """One column of a timeline.

    Attributes:
        x, width, height: in units of a drawing of 1000 by 100.
        target: number of the frame whose thumbnail is linked.
        text: its tooltip.
    """

    x: float
    width: float
    height: float
    target: int
    text: str


def render(page: Page) -> str:
    """Return the page as HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.lstrip_blocks = True
    environment.filters |= {"area": _area, "percent": _percent, "clock": clock, "px": _pixels}
    source = files("sam2unet_core.report").joinpath("template.html").read_text(encoding="utf-8")
    rows = by_group(page.entries)
    allowed = max(1, MAX_PAGE_THUMBNAILS // max(1, len(rows)))
    shown = sorted(rows, key=lambda row: -row.findings.largest_px)[:MAX_PAGE_THUMBNAILS]
    pictured = {row.name for row in shown}
    html: str = environment.from_string(source).render(
        page=page,
        rows=[_row(row, allowed if row.name in pictured else 0) for row in rows],
        totals=_totals(rows),
        burned_in=any(row.burned_in for row in rows),
        unsure=any(row.burned_in is None for row in rows),
        failures=list(page.failures)[:MAX_FAILURES],
        more_failures=max(0, len(page.failures) - MAX_FAILURES),
    )
    return html


def timeline(findings: Findings) -> list[Bar]:
    """Return the columns of a timeline; each shows the largest area of consecutive frames."""
    count = len(findings.areas_px)
    per_bar = max(1, math.ceil(count / MAX_BARS))
    pictures = [each.number for each in findings.thumbnails]
    bars = []
    for start in range(0, count, per_bar):
        areas = findings.areas_px[start : start + per_bar]
        largest = max(areas)
        if largest == 0:
            continue
        number = findings.numbers[start + areas.index(largest)]
        height = max(4.0, 100 * largest / findings.largest_px)
        target = min(pictures, key=lambda each: abs(each - number), default=number)
        x, width = 1000 * start / count, 1000 * len(areas) / count
        bars.append(Bar(x, width, height, target, _bar_text(findings, number, largest)))
    return bars


def clock(seconds: float | None) -> str:
    """Return a time as minutes and seconds."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}"


def _bar_text(findings: Findings, number: int, area: int) -> str:
    step = findings.seconds_per_frame
    index = findings.numbers.index(number)
    when = f", {clock(index * step)}" if step else ""
    return f"frame {number}{when}: {area:,} px"


def _row(entry: Entry, allowed: int) -> dict[str, Any]:
    findings = entry.findings
    moving = findings.seconds_per_frame is not None
    pictures = sorted(findings.thumbnails, key=lambda each: -each.area_px)[:allowed]
    length = len(findings.areas_px) * (findings.seconds_per_frame or 0)
    return {
        "entry": entry,
        "findings": findings,
        "name": _name(entry),
        "full_name": entry.name,
        "what": _kind(entry),
        "pictures": sorted(pictures, key=lambda each: each.number),
        "bars": timeline(findings) if moving or entry.kind in ("multiframe", "volume") else [],
        "moving": moving,
        "length": length,
        "several": len(findings.classes) > 1,
    }


def _name(entry: Entry) -> str:
    """Return a display name, with hashes cut to 8 digits, as in `12ab34cd / 56ef78ab`."""
    parts = entry.name.split("/")
    if all(re.fullmatch("[0-9a-f]{16}", part) for part in parts):
        return " / ".join(part[:8] for part in parts)
    return entry.name or "images"


def _kind(entry: Entry) -> str:
    kinds = {
        "images": "images",
        "stack": "single frames",
        "volume": "volume",
        "multiframe": "multi-frame",
        "video": "video",
        "array": "volume",
    }
    return " ".join(part for part in (entry.modality, kinds.get(entry.kind, entry.kind)) if part)


def _totals(rows: Sequence[Entry]) -> dict[str, int]:
    return {
        "series": len(rows),
        "with_findings": sum(row.findings.frames_with_findings > 0 for row in rows),
        "frames": sum(row.findings.frames for row in rows),
        "frames_with_findings": sum(row.findings.frames_with_findings for row in rows),
    }


def _area(entry: Entry, pixels: int) -> str:
    if pixels == 0:
        return NO_VALUE
    if entry.pixel_mm2 is None:
        return f"{pixels:,} px"
    return f"{_round(pixels * entry.pixel_mm2)} mm²"


def _round(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _percent(part: float | None, whole: int = 1) -> str:
    if part is None or whole == 0:
        return NO_VALUE
    share = 100 * part / whole
    return "<1 %" if 0 < share < 1 else f"{share:.0f} %"


def _pixels(picture: Thumbnail) -> str:
    return f"{picture.area_px:,} px" if picture.area_px else "nothing found"
