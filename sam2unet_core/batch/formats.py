"""The output formats, one class each, the table of all, and the files they write.

Nothing here imports PyTorch, so that the command line and Slicer list the formats quickly.
"""

from __future__ import annotations

import importlib.util
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.batch.folder import Output
from sam2unet_core.errors import Reason
from sam2unet_core.files import PART, file_sha256
from sam2unet_core.media.planes import source_series, stored_frame, to_source
from sam2unet_core.types import Kind, Series

if TYPE_CHECKING:
    from sam2unet_core.batch.settings import Settings
    from sam2unet_core.batch.units import Unit
    from sam2unet_core.dicom.seg import SegType
    from sam2unet_core.dicom.uids import Provenance
    from sam2unet_core.inference.engine import FrameResult
    from sam2unet_core.inference.model import Model
    from sam2unet_core.task import Task

__all__ = ["AUTO", "FORMATS", "OutputFormat", "PictureFormat", "Sink", "Unfit", "open_sinks"]

Sink = Callable[["FrameResult"], None]
"""Called with the results of a unit, frame by frame."""


@dataclass(frozen=True)
class Unfit:
    """Why a format does not fit a unit.

    Attributes:
        format: the format's name.
        reason: the reason for the manifest.
        message: the reason in words.
    """

    format: str
    reason: Reason
    message: str


class OutputFormat(ABC):
    """A file format for results."""

    name: ClassVar[str]
    """Its name for `--format`."""
    help: ClassVar[str]
    """Its description for the command line, the batch tab in Slicer and the documentation."""

    def unfit(self, unit: Unit) -> Unfit | None:
        """Return why this format does not fit a unit; None if it fits."""
        return None

    @abstractmethod
    def open(self, work: UnitWork, stack: ExitStack) -> Sink:
        """Return the sink that writes the results of a unit.

        Libraries are imported here, when the first unit needs them.

        Args:
            work: the unit and its context.
            stack: receives the contexts that close the files.
        """


class PictureFile(NamedTuple):
    """One picture file of a frame."""

    suffix: str
    kind: str
    """Its kind in the manifest."""
    write: Callable[[Path], None]


class PictureFormat(OutputFormat):
    """A format of one or more pictures per frame."""

    @abstractmethod
    def pictures(self, result: FrameResult, task: Task) -> Iterator[PictureFile]:
        """Yield the pictures of one frame."""

    def open(self, work: UnitWork, stack: ExitStack) -> Sink:
        """Return the sink that writes the pictures of a unit."""

        def add(result: FrameResult) -> None:
            frame = result.frame
            base = work.unit.frame_base(frame.instance, frame.number)
            for each in self.pictures(result, work.model.task):
                target = OutputFile(f"{base}.{each.suffix}", each.kind, frame.instance)
                each.write(work.staging.file(target))

        return add

    def write(self, stem: Path, result: FrameResult, task: Task) -> None:
        """Write the pictures of one frame as `stem` plus suffix, in an existing folder."""
        for each in self.pictures(result, task):
            each.write(stem.with_name(f"{stem.name}.{each.suffix}"))


class Seg(OutputFormat):
    """One DICOM segmentation per unit."""

    name = "seg"
    help = "DICOM segmentation"

    def unfit(self, unit: Unit) -> Unfit | None:
        """Reject sources that are not DICOM."""
        return _unfit_without_dicom(self.name, unit)

    def open(self, work: UnitWork, stack: ExitStack) -> Sink:
        """Open the file and return its sink."""
        from sam2unet_core.dicom.seg import SegWriter

        writer = stack.enter_context(
            SegWriter(
                work.staging.file(OutputFile(f"{work.unit.base}.seg.dcm", "seg")),
                source_series(work.unit.series),
                task=work.model.task,
                provenance=work.provenance,
                seg_type=cast("SegType", work.settings.seg_type),
            )
        )

        def add(result: FrameResult) -> None:
            writer.add(result.frame, result.masks, probabilities=result.probabilities)

        return stack.enter_context(_to_stored_frames(work, add)) if work.unit.cut else add


class Png(PictureFormat):
    """One palette PNG per frame: 0 is background, k the k-th class; the palette has its colours."""

    name = "png"
    help = "label map of each frame"

    def pictures(self, result: FrameResult, task: Task) -> Iterator[PictureFile]:
        """Yield the label map."""
        from sam2unet_core.media.image import write_mask

        yield PictureFile(
            "mask.png", "mask", lambda path: write_mask(path, result.labels, task.classes)
        )


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
        path = work.staging.file(OutputFile(f"{work.unit.base}{suffix}", "nifti"))
        writer = stack.enter_context(LabelMapWriter(path, source_series(work.unit.series)))

        def add(result: FrameResult) -> None:
            writer.add(result.frame, result.labels)

        return stack.enter_context(_to_stored_frames(work, add)) if work.unit.cut else add


class Overlay(PictureFormat):
    """An annotated video of a moving source; otherwise one PNG per frame."""

    name = "overlay"
    help = "results drawn over the frames, as pictures or video"

    def pictures(self, result: FrameResult, task: Task) -> Iterator[PictureFile]:
        """Yield the frame with the classes drawn over it."""
        from sam2unet_core.media.image import overlay, write_image

        drawn = overlay(result.frame.pixels, result.labels, task.classes)
        yield PictureFile("overlay.png", "overlay", lambda path: write_image(path, drawn))

    def open(self, work: UnitWork, stack: ExitStack) -> Sink:
        """Return the sink that writes the video, or pictures if PyAV is not installed."""
        if not work.unit.moving or importlib.util.find_spec("av") is None:
            return super().open(work, stack)
        from sam2unet_core.media.video_writer import AnnotatedVideoWriter

        path = work.staging.file(OutputFile(f"{work.unit.base}.overlay.mp4", "overlay"))
        forced = "; forced on an unsuitable source" if work.settings.force_task else ""
        task = work.model.task
        caption = f"{task.title}: research only{forced}"
        writer = stack.enter_context(
            AnnotatedVideoWriter(path, work.unit.series, task=task, caption=caption)
        )
        return lambda result: writer.add(result.frame, result.labels)


class Probabilities(PictureFormat):
    """One 16-bit PNG per frame and class: 0 to 65535 for probabilities from 0 to 1."""

    name = "probabilities"
    help = "16-bit PNG of each frame and class"

    def pictures(self, result: FrameResult, task: Task) -> Iterator[PictureFile]:
        """Yield one map per class."""
        from sam2unet_core.media.image import write_probability

        for value, channel in enumerate(result.probabilities, start=1):
            write = partial(write_probability, probability=channel)
            yield PictureFile(f"prob{value}.png", "probability", write)


class _OfStoredFrames(OutputFormat):
    """A DICOM object about the frames as they are stored."""

    def unfit(self, unit: Unit) -> Unfit | None:
        """Reject sources that are not DICOM, and reformatted planes."""
        return _unfit_without_dicom(self.name, unit) or _unfit_in_another_plane(self.name, unit)


class SecondaryCapture(_OfStoredFrames):
    """One DICOM secondary capture per unit with its overlays."""

    name = "sc"
    help = "overlays as DICOM secondary capture"

    def open(self, work: UnitWork, stack: ExitStack) -> Sink:
        """Open the file and return its sink."""
        from sam2unet_core.dicom.secondary_capture import SecondaryCaptureWriter

        writer = stack.enter_context(
            SecondaryCaptureWriter(
                work.staging.file(OutputFile(f"{work.unit.base}.sc.dcm", "sc")),
                work.unit.series,
                task=work.model.task,
                provenance=work.provenance,
            )
        )
        return lambda result: writer.add(result.frame, result.labels)


class StructuredReport(_OfStoredFrames):
    """One DICOM structured report per unit with its areas and counts."""

    name = "sr"
    help = "areas and counts as DICOM structured report"

    def open(self, work: UnitWork, stack: ExitStack) -> Sink:
        """Open the file and return its sink."""
        from sam2unet_core.dicom.structured_report import ReportWriter

        writer = stack.enter_context(
            ReportWriter(
                work.staging.file(OutputFile(f"{work.unit.base}.sr.dcm", "sr")),
                work.unit.series,
                task=work.model.task,
                provenance=work.provenance,
            )
        )
        return lambda result: writer.add(result.frame, result.masks)


_ALL = (Seg, Png, Nifti, Overlay, Probabilities, SecondaryCapture, StructuredReport)
FORMATS: dict[str, OutputFormat] = {each.name: each() for each in _ALL}
AUTO = "auto"
"""The format name that selects the default formats for each kind of input."""


def open_sinks(work: UnitWork, stack: ExitStack) -> tuple[list[Sink], list[Unfit]]:
    """Open the sinks that write the files of a unit.

    Args:
        work: the unit and the requested formats; without any, the default ones are written.
        stack: receives the contexts that close the files.

    Returns:
        The sinks, and the requested formats that do not fit the unit.
    """
    sinks, left_out = [], []
    for name in _requested(work):
        unfit = FORMATS[name].unfit(work.unit)
        if unfit is None:
            sinks.append(FORMATS[name].open(work, stack))
        else:
            left_out.append(unfit)
    return sinks, left_out


def default_formats(unit: Unit) -> tuple[str, ...]:
    """Return the default formats of a unit."""
    if unit.dicom:
        return ("seg",)
    if unit.series.kind == Kind.ARRAY:
        return ("nifti",)
    return ("png", "overlay") if unit.series.kind == Kind.VIDEO else ("png",)


@dataclass(frozen=True)
class OutputFile:
    """A file to write.

    Attributes:
        path: below the results folder, with `/`.
        kind: its kind in the manifest.
        instance: index of the instance it belongs to; None if it belongs to all.
    """

    path: str
    kind: str
    instance: int | None = None


class Staging:
    """A folder for the unfinished files of one unit.

    Args:
        out: the results folder.
        name: name of the folder.
    """

    def __init__(self, out: Path, name: str) -> None:
        self._out = out
        self._folder = out / name
        self.targets: list[OutputFile] = []

    def create(self) -> None:
        """Create the folder, or empty an existing one."""
        try:
            self._folder.mkdir(parents=True)
        except FileExistsError:
            self.remove()
            self._folder.mkdir(parents=True)

    def remove(self) -> None:
        """Remove the folder and its content."""
        try:
            self._folder.rmdir()  # the usual case: empty, because all files were published
        except OSError:
            shutil.rmtree(self._folder, ignore_errors=True)

    def file(self, target: OutputFile) -> Path:
        """Create the folder of a file and return its staging path."""
        path = self._unfinished(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.targets.append(target)
        return path

    def publish(self) -> list[tuple[OutputFile, Output]]:
        """Rename all files to their final paths; return them with their hashes."""
        outputs = []
        for target in self.targets:
            unfinished, final = self._unfinished(target), self._out / target.path
            sha256 = file_sha256(unfinished)
            final.parent.mkdir(parents=True, exist_ok=True)
            unfinished.replace(final)
            outputs.append((target, Output(target.path, sha256, target.kind)))
        return outputs

    def _unfinished(self, target: OutputFile) -> Path:
        """Return the staging path, whose suffix tells it from a result."""
        return self._folder / f"{target.path}{PART}"


@dataclass(frozen=True)
class UnitWork:
    """A unit and what is needed to write its files."""

    unit: Unit
    staging: Staging
    model: Model
    provenance: Provenance
    settings: Settings


def _requested(work: UnitWork) -> tuple[str, ...]:
    names: list[str] = []
    for name in work.settings.formats or (AUTO,):
        names += default_formats(work.unit) if name == AUTO else (name,)
    return tuple(dict.fromkeys(names))


def _unfit_without_dicom(name: str, unit: Unit) -> Unfit | None:
    """Return why a format that needs a DICOM source does not fit a unit; None if it fits."""
    if unit.dicom:
        return None
    message = "the source is not DICOM; use the format auto"
    return Unfit(name, Reason.UNSUPPORTED_OUTPUT, message)


def _unfit_in_another_plane(name: str, unit: Unit) -> Unfit | None:
    """Return why a format that refers to stored frames does not fit a unit; None if it fits."""
    if not unit.cut:
        return None
    message = "it refers to the stored frames, but --plane cuts new ones"
    return Unfit(name, Reason.UNSUPPORTED_OUTPUT, message)


@contextmanager
def _to_stored_frames(work: UnitWork, add: Sink) -> Iterator[Sink]:
    """Collect the results of a reformatted volume; at the end, pass those of each stored frame on.

    Memory holds the masks and probabilities of the whole volume.
    """
    cut = work.unit.series
    classes, shape = work.model.task.num_classes, (cut.frame_count, cut.rows, cut.columns)
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
    """Return the result of one stored frame, without pixels, from `(H, W, K)` values."""
    from sam2unet_core.inference.engine import FrameResult

    return FrameResult(
        stored_frame(series, index),
        np.ascontiguousarray(np.moveaxis(probabilities, -1, 0)),
        np.ascontiguousarray(np.moveaxis(masks, -1, 0)),
        np.ascontiguousarray(labels),
    )
