"""`sr`: areas and counts as a DICOM structured report."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from sam2unet_core.batch.formats.output_format import (
    OutputFormat,
    Sink,
    Unfit,
    unfit_in_another_plane,
    unfit_without_dicom,
)
from sam2unet_core.batch.outputs import Target, UnitWork

if TYPE_CHECKING:
    from sam2unet_core.batch.units import Unit


class StructuredReport(OutputFormat):
    """One DICOM structured report per unit with its areas and counts."""

    name = "sr"
    help = "areas and counts as DICOM structured report"

    def unfit(self, unit: Unit) -> Unfit | None:
        """Reject sources that are not DICOM, and reformatted planes."""
        return unfit_without_dicom(self.name, unit) or unfit_in_another_plane(self.name, unit)

    def open(self, work: UnitWork, stack: ExitStack) -> Sink:
        """Open the file and return its sink."""
        from sam2unet_core.dicom.structured_report import ReportWriter

        writer = stack.enter_context(
            ReportWriter(
                work.staging.file(Target(f"{work.unit.base}.sr.dcm", "sr")),
                work.unit.series,
                task=work.model.task,
                provenance=work.provenance,
            )
        )
        return lambda result: writer.add(result.frame, result.masks)
