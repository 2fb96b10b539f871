"""Data types of the pipeline: series, instances and frames, whatever their medium."""

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
    """Single-frame instances that form no volume."""
    VOLUME = "volume"
    """Single-frame instances with positions in space."""
    MULTIFRAME = "multiframe"
    """One DICOM instance with several frames."""
    VIDEO = "video"
    """One DICOM instance or video file."""
    IMAGES = "images"
    """One plain image file."""
    ARRAY = "array"
    """One NIfTI, NRRD or MHA file."""
    OTHER = "other"
    """A file that is not an input."""


@dataclass(frozen=True)
class SourceProperties:
    """Properties of a DICOM source that tasks check; None where the source does not state them."""

    modality: str | None
    sop_class_uid: str | None
    photometric: str | None


@dataclass(frozen=True)
class Rejection:
    """Why something is not segmented.

    Attributes:
        reason: for the manifest.
        message: in words; no patient data.
    """

    reason: Reason
    message: str


def rejection_reason(task: Task, source: SourceProperties | None) -> Rejection | None:
    """Return why a task does not accept a source, or None if it does.

    Every task accepts plain images, video and volumes, for which `source` is None.
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
                f"{_what(name, value)}; the task {task.name!r} is made for {_kinds(name, allowed)}",
            )
    return None


def _what(name: str, value: str | None) -> str:
    """Say in words what a source is."""
    if not value:
        return f"the source does not state its {name}"
    if name == "modality" and value in MODALITIES:
        return f"this is {MODALITIES[value][0]} ({value})"
    return f"the {name} of the source is {value}"


def _kinds(name: str, allowed: tuple[str, ...]) -> str:
    """Say in words what a task is made for."""
    if name != "modality":
        return f"the {name} {' or '.join(allowed)}"
    words = dict.fromkeys(MODALITIES[each][1] for each in allowed if each in MODALITIES)
    return f"{', '.join(words)} ({', '.join(allowed)})" if words else ", ".join(allowed)


MODALITIES: dict[str, tuple[str, str]] = {
    "CR": ("an X-ray image", "X-ray images"),
    "CT": ("a CT image", "CT"),
    "DX": ("an X-ray image", "X-ray images"),
    "ES": ("an endoscopic image", "endoscopy"),
    "GM": ("a microscopic image", "microscopy"),
    "IO": ("an intra-oral X-ray image", "dental X-ray images"),
    "IVUS": ("an intravascular ultrasound image", "intravascular ultrasound"),
    "MG": ("a mammogram", "mammography"),
    "MR": ("an MR image", "MR"),
    "NM": ("a nuclear medicine image", "nuclear medicine"),
    "OP": ("a fundus photograph", "fundus photographs"),
    "OPT": ("an optical coherence tomogram", "optical coherence tomography"),
    "OT": ("an image of another kind", "images of other kinds"),
    "PT": ("a PET image", "PET"),
    "PX": ("a panoramic X-ray image", "dental X-ray images"),
    "RF": ("a fluoroscopic image", "fluoroscopy"),
    "SC": ("a secondary capture", "secondary captures"),
    "SM": ("a slide image", "slide microscopy"),
    "US": ("an ultrasound image", "ultrasound"),
    "XA": ("an angiogram", "angiography"),
    "XC": ("a photograph", "photographs"),
}
"""Modalities in words: one image, and many (DICOM PS3.3 C.7.3.1.1.1)."""


Indices = Sequence[int] | None
"""0-based frame indices, ascending; None for all."""

OnError = Callable[[int, InputError], None]
"""Called with the index of an instance and why it, or the rest of it, cannot be read."""

WARNINGS: dict[str, str] = {
    "clock_restarted": "the clock of a video restarts within it, as in two joined recordings",
    "frame_count_differs": "the file holds another number of frames than its header states",
    "frames_not_taken": "frames were skipped because of `--stride`",
    "geometry_ignored": "the file states an impossible position in space, which was ignored",
    "mosaic": "a Siemens mosaic was read as one picture, though it holds many slices",
    "not_finite": "pixels that are not finite (NaN, infinite) were shown as the lowest value",
    "output_omitted": "a requested format could not be written",
    "photometric_corrected": "the colours are not encoded as the file states",
    "pixels_concealed": "the decoder filled in damaged pixels",
    "value_assumed": "a required element is missing; its usual value was assumed",
    "value_corrected": "a value is misspelt, such as with a decimal comma, and was corrected",
    "value_ignored": "a value in the file is unusable; the next best was used",
    "window_guessed": "no usable grey window in the file; one was derived from the values",
}
"""All codes of cautions; docs/batch.md explains each."""


@dataclass(frozen=True)
class Caution:
    """Something that was guessed, ignored or concealed while reading a file.

    Attributes:
        code: one of `WARNINGS`.
        message: what was found and how it was read; no patient data, no path.
    """

    code: str
    message: str

    def __post_init__(self) -> None:
        """Raise ValueError for a code that is not in `WARNINGS`."""
        if self.code not in WARNINGS:
            raise ValueError(f"unknown code {self.code!r}; choose from {', '.join(WARNINGS)}")


@dataclass(frozen=True)
class Frame:
    """One picture.

    Attributes:
        pixels: `(H, W, 3)` uint8 RGB, row-major.
        index: 0-based position in its series.
        instance: index into the series' `instances`.
        number: 1-based frame number inside that instance.
        time_s: seconds from the first frame of the series, or None without a clock.
        cautions: what was guessed or concealed in these pixels.
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
        path: its path.
        sop_class_uid: DICOM SOP class, None for other media.
        sop_instance_uid: None for other media; not unique in real archives.
        frames: number of frames.
        transfer_syntax_uid: of its pixel data, None for other media.
        cautions: what was guessed or ignored in its header; see `Frame.cautions` for its pixels.
        companions: other files that belong to it, such as the header of an `.img`.
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
        """SHA-256 of the file, in hex."""
        return file_sha256(self.path)


@dataclass(frozen=True)
class Skipped:
    """A file that is not an input.

    Attributes:
        path: its path.
        reason: for the manifest.
        message: the reason in words; no patient data.
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
        """SHA-256 of the file, in hex; None if it cannot be read or is not a regular file."""
        try:
            return file_sha256(self.path) if self.path.is_file() else None
        except OSError:
            return None


class FrameSource(Protocol):
    """Reads the frames of a series; one class per medium."""

    def frames(
        self, series: Series, *, indices: Indices, window: Window | None, on_error: OnError | None
    ) -> Iterator[Frame]:
        """Yield the frames with these indices, decoding one at a time."""
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
        study_uid: None if the files have none.
        series_uid: None if the files have none.
        modality: None for plain media, which every task accepts.
        sop_class_uid: None for plain media.
        photometric: None for plain media.
        description: Series Description as stored; it may name a patient.
        rows: height of the frames in pixels.
        columns: width of the frames in pixels.
        frame_count: number of frames.
        frames_per_second: for video and cine, else None.
        geometry: None if the frames have no position in space.
        spacing_mm: (row, column) pixel pitch, or None.
        spacing_note: what that pitch means, such as `at the detector`; may be empty.
        burned_in: whether the pixels may show text about a patient; None if not stated.
        warnings: facts about the source, such as missing slices; no patient data. What was guessed
            while reading it is in the cautions of instances and frames.
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
        """Yield the frames one by one.

        Args:
            indices: 0-based, ascending; all frames by default. Every Nth frame is
                `range(0, series.frame_count, N)`. Other single-frame files are not read.
            window: grey window that replaces the file's own where values have a unit, as in CT.
            on_error: called for each instance that fails; reading continues with the next one.
                Without it the first failure is raised.

        Raises:
            InputError: a frame cannot be decoded and `on_error` is None.
        """
        chosen = None if indices is None or isinstance(indices, range) else list(indices)
        if chosen and (chosen != sorted(set(chosen)) or not chosen[0] >= 0):
            raise ValueError(f"frame indices must ascend from 0, got {chosen[:5]} ...")
        return self.source.frames(self, indices=chosen or indices, window=window, on_error=on_error)

    def dataset(self, instance_index: int) -> Dataset | None:
        """Return the DICOM header of an instance without its pixels; None for other media."""
        return self.source.dataset(self, instance_index)

    @property
    def is_dicom(self) -> bool:
        """Whether it was read from DICOM files."""
        return self.instances[0].sop_class_uid is not None

    @property
    def properties(self) -> SourceProperties | None:
        """Properties that tasks check; None for media other than DICOM."""
        if not self.is_dicom:
            return None
        return SourceProperties(self.modality, self.sop_class_uid, self.photometric)
