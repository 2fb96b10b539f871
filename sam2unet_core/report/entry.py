"""One row of the report: a series and its findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sam2unet_core.report.findings import Findings, combine


@dataclass(frozen=True)
class Entry:
    """A series as the report shows it.

    Attributes:
        name: the name of its results; for DICOM a pseudonym.
        group: entries of one group share a row, as the images of one folder do.
        kind: see `sam2unet_core.types.Kind`.
        modality: DICOM modality, or None.
        spacing_mm: (row, column) pixel pitch, or None.
        spacing_note: what that pitch means; may be empty.
        burned_in: whether the pixels may show names; None if not stated.
        warnings: for the reader; no patient data.
        video: path of the annotated video below the results folder, or None.
        findings: its findings.
    """

    name: str
    group: str
    kind: str
    findings: Findings
    modality: str | None = None
    spacing_mm: tuple[float, float] | None = None
    spacing_note: str = ""
    burned_in: bool | None = None
    warnings: tuple[str, ...] = field(default=())
    video: str | None = None

    @property
    def pixel_mm2(self) -> float | None:
        """Area of a pixel in square millimetres, or None."""
        return self.spacing_mm[0] * self.spacing_mm[1] if self.spacing_mm else None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dictionary."""
        return {**asdict(self), "findings": self.findings.to_dict()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Entry:
        """Read what `to_dict` returned.

        Raises:
            TypeError, KeyError: it has another form.
        """
        fields = dict(content)
        findings = Findings.from_dict(fields.pop("findings"))
        spacing = fields.pop("spacing_mm")
        warnings = tuple(fields.pop("warnings"))
        pitch = (float(spacing[0]), float(spacing[1])) if spacing else None
        return cls(**fields, findings=findings, spacing_mm=pitch, warnings=warnings)


def by_group(entries: Sequence[Entry]) -> list[Entry]:
    """Merge the entries of each group, sorted by name."""
    groups: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda each: each.name):
        groups.setdefault(entry.group, []).append(entry)
    return [_combined(name, group) for name, group in groups.items()]


def _combined(name: str, group: list[Entry]) -> Entry:
    if len(group) == 1:
        return group[0]
    warnings = dict.fromkeys(text for entry in group for text in entry.warnings)
    return replace(
        group[0],
        name=name,
        findings=combine([entry.findings for entry in group]),
        warnings=tuple(warnings),
    )
