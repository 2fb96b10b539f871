"""`nifti`: label maps of volumes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from sam2unet_core.batch.formats.output_format import OutputFormat, Sink, Unfit
from sam2unet_core.batch.formats.stored_frames import to_stored_frames
from sam2unet_core.batch.outputs import Target, UnitWork
from sam2unet_core.errors import Reason
from sam2unet_core.media.planes import source_series
from sam2unet_core.types import Kind

if TYPE_CHECKING:
    from sam2unet_core.batch.units import Unit
    from sam2unet_core.inference.engine import FrameResult


class Nifti(OutputFormat):
    """One NIfTI label map per unit, on the grid of its source."""

    name = "nifti"
    help = "label map of a volume"

    def unfit(self, unit: Unit) -> Unfit | None:
        """Reject frames that do not form a volume."""
        source = source_series(unit.series)
        if source.kind == Kind.ARRAY:  # keeps the file's own header
            return None
        if source.geometry is None:
            message = "the frames have no position in space"
            return Unfit(self.name, Reason.UNSUPPORTED_OUTPUT, message)
        if not source.geometry.in_spatial_order().regular:
            message = "; ".join(source.geometry.problems)
            return Unfit(self.name, Reason.INCONSISTENT_GEOMETRY, message)
        return None

    def open(self, work: UnitWork, stack: ExitStack) -> Sink:
        """Open the file and return its sink."""
        from sam2unet_core.media.volume_writer import LabelMapWriter

        suffix = ".nii.gz" if work.unit.dicom else ".mask.nii.gz"
        path = work.staging.file(Target(f"{work.unit.base}{suffix}", "nifti"))
        writer = stack.enter_context(LabelMapWriter(path, source_series(work.unit.series)))

        def add(result: FrameResult) -> None:
            writer.add(result.frame, result.labels)

        return stack.enter_context(to_stored_frames(work, add)) if work.unit.cut else add
