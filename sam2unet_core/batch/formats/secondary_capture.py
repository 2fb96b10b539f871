"""`sc`: overlays as DICOM, for viewers that cannot show segmentations."""

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


class SecondaryCapture(OutputFormat):
    """One DICOM secondary capture per unit with its overlays."""

    name = "sc"
    help = "overlays as DICOM secondary capture"

    def unfit(self, unit: Unit) -> Unfit | None:
        """Reject sources that are not DICOM, and reformatted planes."""
        return unfit_without_dicom(self.name, unit) or unfit_in_another_plane(self.name, unit)

    def open(self, work: UnitWork, stack: ExitStack) -> Sink:
        """Open the file and return its sink."""
        from sam2unet_core.dicom.secondary_capture import SecondaryCaptureWriter

        writer = stack.enter_context(
            SecondaryCaptureWriter(
                work.staging.file(Target(f"{work.unit.base}.sc.dcm", "sc")),
                work.unit.series,
                task=work.model.task,
                provenance=work.provenance,
            )
        )
        return lambda result: writer.add(result.frame, result.labels)
