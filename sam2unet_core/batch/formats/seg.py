"""`seg`: DICOM segmentation."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

from sam2unet_core.batch.formats.output_format import (
    OutputFormat,
    Sink,
    Unfit,
    unfit_without_dicom,
)
from sam2unet_core.batch.formats.stored_frames import to_stored_frames
from sam2unet_core.batch.outputs import Target, UnitWork
from sam2unet_core.media.planes import source_series

if TYPE_CHECKING:
    from sam2unet_core.batch.units import Unit
    from sam2unet_core.dicom.seg import SegType
    from sam2unet_core.inference.engine import FrameResult


class Seg(OutputFormat):
    """One DICOM segmentation per unit."""

    name = "seg"
    help = "DICOM segmentation"

    def unfit(self, unit: Unit) -> Unfit | None:
        """Reject sources that are not DICOM."""
        return unfit_without_dicom(self.name, unit)

    def open(self, work: UnitWork, stack: ExitStack) -> Sink:
        """Open the file and return its sink."""
        from sam2unet_core.dicom.seg import SegWriter

        writer = stack.enter_context(
            SegWriter(
                work.staging.file(Target(f"{work.unit.base}.seg.dcm", "seg")),
                source_series(work.unit.series),
                task=work.model.task,
                provenance=work.provenance,
                seg_type=cast("SegType", work.settings.seg_type),
            )
        )

        def add(result: FrameResult) -> None:
            writer.add(result.frame, result.masks, probabilities=result.probabilities)

        return stack.enter_context(to_stored_frames(work, add)) if work.unit.cut else add
