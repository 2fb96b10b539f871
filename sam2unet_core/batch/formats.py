"""Which files a unit gets: the formats asked for, as far as its kind of source can have them.

Writers of DICOM, volumes and video are imported when the first unit needs them: with their
libraries they take longer to import than a picture takes to segment.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.batch.outputs import (
    Job,
    Sink,
    Target,
    mask_images,
    overlay_images,
    probability_images,
)
from sam2unet_core.batch.settings import AUTO
from sam2unet_core.batch.units import Unit
from sam2unet_core.media.planes import source_series, to_source
from sam2unet_core.pipeline import FrameResult
from sam2unet_core.types import Frame, Series

if TYPE_CHECKING:
    from sam2unet_core.dicom.seg import SegType

Opener = Callable[[Job, ExitStack], Sink]


@dataclass(frozen=True)
class Unfit:
    """A format that a unit cannot have.

    Attributes:
        format: one of `FORMATS`.
        reason: of the manifest's list.
        message: why, for people.
    """

    format: str
    reason: str
    message: str


def open_sinks(job: Job, stack: ExitStack) -> tuple[list[Sink], list[Unfit]]:
    """Open what writes the files of a unit.

    Args:
        job: the unit and the formats asked for; none asked for means those that suit it.
        stack: gets the contexts that finish the files.

    Returns:
        the sinks, and the formats asked for that the unit cannot have.
    """
    asked = _asked(job)
    left_out = [found for name in asked if (found := unfit(name, job.unit))]
    names = {each.format for each in left_out}
    return [OPENERS[name](job, stack) for name in asked if name not in names], left_out


def _asked(job: Job) -> tuple[str, ...]:
    names: list[str] = []
    for name in job.settings.formats or (AUTO,):
        names += default_formats(job.unit) if name == AUTO else (name,)
    return tuple(dict.fromkeys(names))


def default_formats(unit: Unit) -> tuple[str, ...]:
    """Return what a unit gets where nothing was asked for."""
    if unit.dicom:
        return ("seg",)
    if unit.series.kind == "array":
        return ("nifti",)
    return ("png", "overlay") if unit.series.kind == "video" else ("png",)


def unfit(name: str, unit: Unit) -> Unfit | None:
    """Return why a unit cannot have a format; None where it can."""
    if name in ("seg", "sc", "sr") and not unit.dicom:
        return Unfit(
            name, "unsupported_output", "the source is not DICOM; auto writes what suits it"
        )
    if name in ("sc", "sr") and unit.cut:
        message = "it refers to frames as they are stored, and --plane looks at others"
        return Unfit(name, "unsupported_output", message)
    source = source_series(unit.series)
    if name != "nifti" or source.kind == "array":  # which keeps the file's own header
        return None
    if source.geometry is None:
        return Unfit(name, "unsupported_output", "the frames have no place in space")
    if not source.geometry.in_spatial_order().regular:
        return Unfit(name, "inconsistent_geometry", "; ".join(source.geometry.problems))
    return None


def _seg(job: Job, stack: ExitStack) -> Sink:
    """Write a DICOM SEG of the whole unit."""
    from sam2unet_core.dicom.seg import SegWriter  # noqa: PLC0415 - see above

    writer = stack.enter_context(
        SegWriter(
            job.staging.file(Target(f"{job.unit.base}.seg.dcm", "seg")),
            source_series(job.unit.series),
            task=job.model.task,
            provenance=job.provenance,
            seg_type=cast("SegType", job.settings.seg_type),
        )
    )

    def add(result: FrameResult) -> None:
        writer.add(result.frame, result.masks, probabilities=result.probabilities)

    return stack.enter_context(_to_source_frames(job, add)) if job.unit.cut else add


def _nifti(job: Job, stack: ExitStack) -> Sink:
    """Write a NIfTI label map of the whole unit."""
    from sam2unet_core.media.volume_writer import LabelMapWriter  # noqa: PLC0415 - see above

    suffix = ".nii.gz" if job.unit.dicom else ".mask.nii.gz"
    path = job.staging.file(Target(f"{job.unit.base}{suffix}", "nifti"))
    writer = stack.enter_context(LabelMapWriter(path, source_series(job.unit.series)))

    def add(result: FrameResult) -> None:
        writer.add(result.frame, result.labels)

    return stack.enter_context(_to_source_frames(job, add)) if job.unit.cut else add


def _secondary_capture(job: Job, stack: ExitStack) -> Sink:
    """Write the overlays as one DICOM secondary capture."""
    from sam2unet_core.dicom.secondary_capture import (  # noqa: PLC0415 - see above
        SecondaryCaptureWriter,
    )

    path = job.staging.file(Target(f"{job.unit.base}.sc.dcm", "sc"))
    writer = stack.enter_context(
        SecondaryCaptureWriter(
            path, job.unit.series, task=job.model.task, provenance=job.provenance
        )
    )
    return lambda result: writer.add(result.frame, result.labels)


def _structured_report(job: Job, stack: ExitStack) -> Sink:
    """Write areas and counts as a DICOM structured report."""
    from sam2unet_core.dicom.structured_report import ReportWriter  # noqa: PLC0415 - see above

    path = job.staging.file(Target(f"{job.unit.base}.sr.dcm", "sr"))
    writer = stack.enter_context(
        ReportWriter(path, job.unit.series, task=job.model.task, provenance=job.provenance)
    )
    return lambda result: writer.add(result.frame, result.masks)


def _overlay(job: Job, stack: ExitStack) -> Sink:
    """Write an annotated video of what moves, a picture a frame of what does not."""
    if not job.unit.moving or importlib.util.find_spec("av") is None:
        return overlay_images(job)
    from sam2unet_core.media.video_writer import AnnotatedVideoWriter  # noqa: PLC0415 - see above

    path = job.staging.file(Target(f"{job.unit.base}.overlay.mp4", "overlay"))
    forced = "; forced on a source it is not made for" if job.settings.force_task else ""
    caption = f"{job.model.task.title}: research only{forced}"
    writer = stack.enter_context(
        AnnotatedVideoWriter(path, job.unit.series, task=job.model.task, caption=caption)
    )
    return lambda result: writer.add(result.frame, result.labels)


@contextmanager
def _to_source_frames(job: Job, add: Sink) -> Iterator[Sink]:
    """Gather the results of a volume that was cut in another plane; give them as it is stored.

    Memory holds the masks and the probabilities of the whole volume.
    """
    cut = job.unit.series
    classes, shape = job.model.task.num_classes, (cut.frame_count, cut.rows, cut.columns)
    probabilities = np.zeros((*shape, classes), np.float32)
    masks = np.zeros((*shape, classes), bool)
    labels = np.zeros(shape, np.uint8)

    def gather(result: FrameResult) -> None:
        index = result.frame.index
        probabilities[index] = np.moveaxis(result.probabilities, 0, -1)
        masks[index] = np.moveaxis(result.masks, 0, -1)
        labels[index] = result.labels

    yield gather
    volumes = [to_source(cut, each) for each in (probabilities, masks, labels)]
    for index, values in enumerate(zip(*volumes, strict=True)):
        add(_result(source_series(cut), index, *values))


def _result(
    series: Series,
    index: int,
    probabilities: NDArray[np.float32],
    masks: NDArray[np.bool_],
    labels: NDArray[np.uint8],
) -> FrameResult:
    """Return what was found in one stored frame, from `(H, W, K)` values; no pixels with it."""
    one_each = len(series.instances) == series.frame_count
    instance, number = (index, 1) if one_each else (0, index + 1)
    blank = np.zeros((*labels.shape, 3), np.uint8)
    return FrameResult(
        Frame(blank, index, instance, number),
        np.ascontiguousarray(np.moveaxis(probabilities, -1, 0)),
        np.ascontiguousarray(np.moveaxis(masks, -1, 0)),
        np.ascontiguousarray(labels),
    )


def _images(make: Callable[[Job], Sink]) -> Opener:
    def open_(job: Job, _stack: ExitStack) -> Sink:
        return make(job)

    return open_


OPENERS: dict[str, Opener] = {
    "seg": _seg,
    "png": _images(mask_images),
    "nifti": _nifti,
    "overlay": _overlay,
    "probabilities": _images(probability_images),
    "sc": _secondary_capture,
    "sr": _structured_report,
}
