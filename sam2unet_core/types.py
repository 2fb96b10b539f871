"""What goes through the pipeline: a series of frames, whatever medium it came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.errors import InputError, Reason
from sam2unet_core.files import file_sha256
from sam2unet_core.geometry import Geometry
from sam2unet_core.task import Task, Window

if TYPE_CHECKING:
    from pydicom import Dataset


class Kind(StrEnum):
    """What a series is made of."""

    STACK = "stack"
    """Single-frame instances without a place in space, or that form no volume."""
    VOLUME = "volume"
    """Instances with places in space."""
    MULTIFRAME = "multiframe"
    """One DICOM instance of several frames."""
    VIDEO = "video"
    """One DICOM instance or video file."""
    IMAGES = "images"
    """One plain image file."""
    ARRAY = "array"
    """One NIfTI, NRRD or MHA file."""
    OTHER = "other"
    """A file that is no input."""


@dataclass(frozen=True)
class SourceProperties:
    """What a task asks of a DICOM source; None where the source does not state it.

    Plain images, video and volumes state nothing: `None` in place of the whole stands for them.
    """

    modality: str | None
    sop_class_uid: str | None
    photometric: str | None


@dataclass(frozen=True)
class Rejection:
    """Why something is not segmented.

    Attributes:
        reason: of the manifest's list.
        message: for people; no patient data.
    """

    reason: Reason
    message: str


def rejection_reason(task: Task, source: SourceProperties | None) -> Rejection | None:
    """Return why a task is not made for a source, or None where it is.

    Args:
        task: says what it accepts.
        source: None for plain images, video and volumes, which every task accepts.
    """
    if source is None:
        return None
    rules = (
        ("modality", source.modality, task.accepts.modalities),
        ("SOP class", source.sop_class_uid, task.accepts.sop_classes),
        ("photometric interpretation", source.photometric, task.accepts.photometric),
    )
    for name, value, allowed in rules:
        if allowed and value not in allowed:
            return Rejection(
                Reason.TASK_MISMATCH,
                f"the task {task.name!r} accepts the {name} {', '.join(allowed)}, not "
                f"{value or 'none'}",
            )
    return None


Indices = Sequence[int] | None
"""0-based indices of frames, ascending; None for all."""

OnError = Callable[[int, InputError], None]
"""Told the index of an instance and why it, or the rest of it, cannot be read."""

WARNINGS: dict[str, str] = {
    "clock_restarted": "the clock of a video starts again within it, as in two joined recordings",
    "frame_count_differs": "the file holds another number of frames than it announces",
    "frames_not_taken": "frames were left out because `--stride` asks for it",
    "geometry_ignored": "the file states a place in space that cannot be, and it was left out",
    "mosaic": "a Siemens mosaic was taken as one picture, though it holds many slices",
    "not_finite": "pixels that are no numbers (NaN, infinite) were shown as the lowest value",
    "output_omitted": "a format that was asked for could not be written",
    "photometric_corrected": "the colours are stored in another way than the file says",
    "pixels_concealed": "damaged pixels that the decoder has filled in",
    "value_assumed": "a required element is missing; the obvious value was taken",
    "value_corrected": "a value is misspelt, such as with a decimal comma, and was read as meant",
    "value_ignored": "a value in the file cannot be used, and the next best was taken",
    "window_guessed": "no usable grey window in the file: one was derived from the values",
}
"""The closed list of what was guessed, left out or concealed; docs/batch.md explains each."""


@dataclass(frozen=True)
class Caution:
    """Something that was guessed, left out or concealed while a file was read.

    Attributes:
        code: one of `WARNINGS`.
        message: for people: what was found and what was made of it; no patient data, no path.
    """

    code: str
    message: str

    def __post_init__(self) -> None:
        """Hold the list closed.

        Raises:
            ValueError: the code is none of `WARNINGS`.
        """
        if self.code not in WARNINGS:
            raise ValueError(f"{self.code!r} is none of {', '.join(WARNINGS)}")


@dataclass(frozen=True)
class Frame:
    """One picture.

    Attributes:
        pixels: `(H, W, 3)` uint8 RGB, row-major.
        index: 0-based place in its series.
        instance: index into the series' `instances`.
        number: 1-based frame number inside that instance.
        time_s: seconds from the series' first frame, or None where no clock is known.
        cautions: what was guessed or concealed in this frame's pixels.
    """

    pixels: NDArray[np.uint8]
    index: int
    instance: int
    number: int
    time_s: float | None = None
    cautions: tuple[Caution, ...] = ()


@dataclass(frozen=True)
class Instance:
    """One file.

    Attributes:
        path: where it is.
        sop_class_uid: DICOM SOP class, None for other media.
        sop_instance_uid: None for other media; not unique in real archives.
        frames: how many frames it holds.
        transfer_syntax_uid: of its pixel data, None for other media.
        cautions: what was guessed or left out as far as its header tells; see `Frame.cautions`.
        companions: other files that are part of it, such as the header of an `.img`.
    """

    path: Path
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    frames: int = 1
    transfer_syntax_uid: str | None = None
    cautions: tuple[Caution, ...] = ()
    companions: tuple[Path, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Hash of the file's bytes, in hex; computed once, when first asked for."""
        return file_sha256(self.path)


@dataclass(frozen=True)
class Skipped:
    """A file that is no input.

    Attributes:
        path: where it is.
        reason: from the manifest's closed list, such as `not_dicom` or `truncated`.
        message: for people; no patient data.
        relative: path below the input the user named, with `/`.
        archive: the archive that the file was unpacked from, or None.
    """

    path: Path
    reason: Reason
    message: str
    relative: str = ""
    archive: Path | None = None

    @cached_property
    def sha256(self) -> str | None:
        """Hash of the file's bytes, in hex; None where it cannot be read, or is no file."""
        try:
            return file_sha256(self.path) if self.path.is_file() else None
        except OSError:
            return None


class FrameSource(Protocol):
    """Reads the frames of a series; each medium has its own."""

    def frames(
        self, series: Series, *, indices: Indices, window: Window | None, on_error: OnError | None
    ) -> Iterator[Frame]:
        """Yield the frames of these indices, None for all, decoding one at a time."""
        ...

    def dataset(self, series: Series, instance_index: int) -> Dataset | None:
        """Return the DICOM header of an instance without its pixels; None for other media."""
        ...


@dataclass(frozen=True, eq=False)
class Series:
    """Frames that belong together.

    Attributes:
        kind: see `Kind`.
        instances: the files, in the order of their frames.
        source: reads the frames.
        source_path: the input the user named; for a DICOMDIR, its folder.
        relative: path of the first file below that input, with `/`; for a file given by itself,
            its name.
        study_uid: None where the files have none.
        series_uid: None where the files have none.
        modality: None for plain media, which every task accepts.
        sop_class_uid: None for plain media.
        photometric: None for plain media.
        description: the series' description as it stands in the file: may name a patient.
        rows: height of the frames in pixels.
        columns: width of the frames in pixels.
        frame_count: how many frames there are.
        frames_per_second: for video and cine, else None.
        geometry: None where the frames have no place in space.
        spacing_mm: (row, column) pixel pitch, or None.
        spacing_note: what that pitch means, such as `at the detector, not in the patient`.
        burned_in: whether the pixels may show text about a patient; None where it is not said.
        warnings: what a person should know about the source, such as missing slices; no patient
            data. What was guessed in reading it is with its instances and frames, as cautions.
        archive: the archive that the files were unpacked from, or None.
    """

    kind: Kind
    instances: tuple[Instance, ...]
    source: FrameSource
    source_path: Path
    relative: str
    rows: int
    columns: int
    frame_count: int
    study_uid: str | None = None
    series_uid: str | None = None
    modality: str | None = None
    sop_class_uid: str | None = None
    photometric: str | None = None
    description: str = ""
    frames_per_second: float | None = None
    geometry: Geometry | None = None
    spacing_mm: tuple[float, float] | None = None
    spacing_note: str = ""
    burned_in: bool | None = None
    warnings: tuple[str, ...] = field(default=())
    archive: Path | None = None

    def frames(
        self,
        *,
        indices: Sequence[int] | None = None,
        window: Window | None = None,
        on_error: OnError | None = None,
    ) -> Iterator[Frame]:
        """Yield the frames one by one; `Frame.index` counts all of the series.

        Args:
            indices: 0-based, ascending; all frames by default. Every Nth frame is
                `range(0, series.frame_count, N)`. Single-frame files that are not asked for are
                not read.
            window: grey window that replaces the file's own where values have a unit, as in CT.
            on_error: told of each instance that fails, and the others go on; without it the
                first failure is raised.

        Raises:
            InputError: a frame cannot be decoded and `on_error` is None.
        """
        chosen = None if indices is None or isinstance(indices, range) else list(indices)
        if chosen and (chosen != sorted(set(chosen)) or not chosen[0] >= 0):
            raise ValueError(f"frame indices: expected ascending from 0, got {chosen[:5]} ...")
        return self.source.frames(self, indices=chosen or indices, window=window, on_error=on_error)

    def dataset(self, instance_index: int) -> Dataset | None:
        """Return the DICOM header of an instance without its pixels; None for other media."""
        return self.source.dataset(self, instance_index)

    @property
    def is_dicom(self) -> bool:
        """Whether it came from DICOM files."""
        return self.instances[0].sop_class_uid is not None

    @property
    def properties(self) -> SourceProperties | None:
        """What a task asks of it; None for other media than DICOM."""
        if not self.is_dicom:
            return None
        return SourceProperties(self.modality, self.sop_class_uid, self.photometric)
