"""Synthetic sources with headers as real ones have, asymmetric masks, and independent readers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from sam2unet_core.dicom.seg import SegType, SegWriter
from sam2unet_core.dicom.uids import Provenance
from sam2unet_core.geometry import Geometry
from sam2unet_core.task import Task, TaskClass
from sam2unet_core.types import Frame, FrameSource, Indices, Instance, OnError, Series, Window

ROWS, COLUMNS = 37, 53  # 1961 pixels: not a whole number of bytes, so frames share bytes
H264 = "1.2.840.10008.1.2.4.102"
EXPLICIT = "1.2.840.10008.1.2.1"
POLYP = ("SCT", "68496003", "Polyp of colon")
MORPHOLOGY = ("SCT", "49755003", "Morphologically Abnormal Structure")
COLON = ("SCT", "71854001", "Colon")
OBJECT = ("SCT", "260787004", "Physical object")


@dataclass
class FakeSource(FrameSource):
    """Serves frames of grey noise and the headers it was given."""

    headers: list[Dataset | None]

    def frames(
        self, series: Series, *, indices: Indices, window: Window | None, on_error: OnError | None
    ) -> Iterator[Frame]:
        noise = np.random.default_rng(0)
        places = [(i, n) for i, each in enumerate(series.instances) for n in range(each.frames)]
        rate = series.frames_per_second
        for index in range(len(places)) if indices is None else indices:
            instance, number = places[index]
            pixels = noise.integers(0, 200, (series.rows, series.columns, 3), np.uint8)
            time_s = index / rate if rate else None
            yield Frame(pixels, index, instance, number + 1, time_s)

    def dataset(self, series: Series, instance_index: int) -> Dataset | None:
        return self.headers[instance_index]


def header(number: int = 0, **more: object) -> Dataset:
    """A complete composite header; `more` replaces and adds."""
    uid = "1.2.826.0.1.3680043.8.498"
    given = {
        "PatientName": "Müller^Test",
        "PatientID": "P-1",
        "PatientBirthDate": "19500101",
        "PatientSex": "F",
        "StudyDate": "20240102",
        "StudyTime": "101112",
        "StudyID": "S1",
        "AccessionNumber": "A1",
        "ReferringPhysicianName": "",
        "SeriesNumber": 4,
        "StudyInstanceUID": f"{uid}.1",
        "SeriesInstanceUID": f"{uid}.2",
        "SOPInstanceUID": f"{uid}.3.{number}",
    }
    made = Dataset()
    for keyword, value in {**given, "Rows": ROWS, "Columns": COLUMNS, **more}.items():
        setattr(made, keyword, value)
    return made


def build(kind: str, headers: list[Dataset], *, frames: int = 1, **more: object) -> Series:
    """A series over these headers; the files it names do not exist unless a test makes them."""
    syntax = str(more.pop("syntax", EXPLICIT))
    folder = Path(str(more.pop("folder", "source")))
    instances = tuple(
        Instance(
            folder / f"{i}.dcm",
            sop_class_uid=each.get("SOPClassUID"),
            sop_instance_uid=each.get("SOPInstanceUID"),
            frames=frames,
            transfer_syntax_uid=syntax,
        )
        for i, each in enumerate(headers)
    )
    return Series(
        kind=kind,
        instances=instances,
        source=FakeSource(list(headers)),
        source_path=folder,
        relative="source",
        rows=ROWS,
        columns=COLUMNS,
        frame_count=frames * len(headers),
        study_uid=headers[0].get("StudyInstanceUID"),
        series_uid=headers[0].get("SeriesInstanceUID"),
        modality=headers[0].get("Modality"),
        sop_class_uid=headers[0].get("SOPClassUID"),
        **more,
    )


def endoscopy_stack() -> Series:
    """Three single VL endoscopy pictures, without a place in space."""
    sop = "1.2.840.10008.5.1.4.1.1.77.1.1"
    return build("stack", [header(n, SOPClassUID=sop, Modality="ES") for n in range(3)])


def endoscopy_bare() -> Series:
    """One secondary capture that lacks every attribute it may lack, and some it may not."""
    full = header(0, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="OT")
    kept = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality")
    sparse = Dataset()
    for keyword in kept:
        setattr(sparse, keyword, full[keyword].value)
    return build("stack", [sparse])


def endoscopy_video(frames: int = 5) -> Series:
    """One H.264 endoscopy video object."""
    sop = "1.2.840.10008.5.1.4.1.1.77.1.1.1"
    one = header(0, SOPClassUID=sop, Modality="ES", NumberOfFrames=frames)
    one.LossyImageCompression, one.LossyImageCompressionRatio = "01", "40"
    one.LossyImageCompressionMethod = "ISO_14496_10"
    return build("video", [one], frames=frames, frames_per_second=25.0, syntax=H264)


def ultrasound_cine() -> Series:
    """One ultrasound multi-frame object with a calibrated region."""
    sop = "1.2.840.10008.5.1.4.1.1.3.1"
    one = header(0, SOPClassUID=sop, Modality="US", NumberOfFrames=4)
    return build("multiframe", [one], frames=4, frames_per_second=20.0, spacing_mm=(0.5, 0.25))


def geometry(slices: int, *, shift: tuple[float, float, float] = (0, 0, 0)) -> Geometry:
    """Sagittal-like frames with a negated column cosine and pixels of 0.8 x 0.5 mm.

    Rows run to the back (+y), columns to the feet (-z), so the normal is (-1, 0, 0) and slices
    go to the right of the patient; `shift` moves each slice in its own plane, as a tilt does.
    """
    step = np.array([-3.0, 0, 0]) + np.array(shift)
    first = np.array([40.0, -60.5, 120.25])
    return Geometry(
        positions=first + np.arange(slices)[:, None] * step,
        row_cosine=np.array([0.0, 1.0, 0.0]),
        column_cosine=np.array([0.0, 0.0, -1.0]),
        spacing_mm=(0.8, 0.5),
        thickness_mm=2.5,
        frame_of_reference_uid="1.2.826.0.1.3680043.8.498.9",
    )


def ct_volume(slices: int = 4, *, places: Geometry | None = None) -> Series:
    """Single-frame CT slices in the patient."""
    sop = "1.2.840.10008.5.1.4.1.1.2"
    headers = [header(n, SOPClassUID=sop, Modality="CT") for n in range(slices)]
    return build("volume", headers, geometry=places or geometry(slices), spacing_mm=(0.8, 0.5))


def ct_tilted() -> Series:
    """Slices that lean: each is moved 0.7 mm in its own plane."""
    return ct_volume(places=geometry(4, shift=(0, 0.7, 0)))


def enhanced_ct() -> Series:
    """One enhanced multi-frame object in the patient."""
    sop = "1.2.840.10008.5.1.4.1.1.2.1"
    one = header(0, SOPClassUID=sop, Modality="CT", NumberOfFrames=4)
    return build("multiframe", [one], frames=4, geometry=geometry(4))


SOURCES: dict[str, Callable[[], Series]] = {
    "endoscopy_stack": endoscopy_stack,
    "endoscopy_bare": endoscopy_bare,
    "endoscopy_video": endoscopy_video,
    "ultrasound_cine": ultrasound_cine,
    "ct_volume": ct_volume,
    "ct_tilted": ct_tilted,
    "enhanced_ct": enhanced_ct,
}


@pytest.fixture(params=SOURCES)
def series(request: pytest.FixtureRequest) -> Series:
    """Each kind of source in turn."""
    return SOURCES[request.param]()


@pytest.fixture
def task() -> Task:
    """Two classes that may overlap."""
    return Task(
        name="polyp_and_tool",
        version="0.1.0",
        title="Polyp and instrument",
        image_size=(64, 64),
        classes=(
            TaskClass(1, "polyp", "Polyp", MORPHOLOGY, POLYP, COLON, (230, 159, 0)),
            TaskClass(2, "tool", "Instrument", OBJECT, OBJECT, None, (0, 114, 178)),
        ),
    )


@pytest.fixture
def one_class(task: Task) -> Task:
    """The first class alone."""
    return replace(task, name="polyp", classes=task.classes[:1])


@pytest.fixture
def provenance() -> Provenance:
    return Provenance(
        key="5f" * 32,
        started=datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC),
        version="0.1.0",
        weights_sha256="ab" * 32,
        runtime="exact",
        precision="float32",
        threshold=0.5,
        model_note="starter model",
    )


def pattern(frame: int, *, classes: int = 2) -> NDArray[np.bool_]:
    """`(K, ROWS, COLUMNS)`: an L that differs in every frame and class, and in every mirror.

    Frame 1 holds nothing.
    """
    masks = np.zeros((classes, ROWS, COLUMNS), bool)
    for k in range(classes if frame != 1 else 0):
        top, left = 3 + 2 * k, 5 + 3 * frame
        masks[k, top : top + 15 + frame, left : left + 3] = True
        masks[k, top + 12 + frame : top + 15 + frame, left : left + 11 + k] = True
    return masks


@pytest.fixture
def dciodvfy() -> Callable[[Path], list[str]]:
    """Runs the validator of dicom3tools; returns its lines of errors."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("needs dciodvfy: apt-get install dicom3tools")

    def errors(path: Path) -> list[str]:
        done = subprocess.run(
            [program, "-new", str(path)],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
        )
        said = done.stderr + done.stdout
        assert "Error" in said or said.strip(), "the validator said nothing at all"
        return [line for line in said.splitlines() if line.startswith("Error")]

    return errors


@pytest.fixture
def make_series() -> Callable[..., Series]:
    """Makes a source by its name in `SOURCES`."""
    return lambda name, **more: SOURCES[name](**more)


@pytest.fixture
def mask_of() -> Callable[..., NDArray[np.bool_]]:
    """The masks of a frame: see `pattern`."""
    return pattern


@pytest.fixture
def write(tmp_path: Path, provenance: Provenance) -> Callable[..., Path]:
    """Writes the SEG of a series with the masks of `pattern`."""

    def write(
        series: Series,
        task: Task,
        *,
        seg_type: SegType = "binary",
        stride: int = 1,
        name: str = "seg.dcm",
        by: Provenance = provenance,
    ) -> Path:
        path = tmp_path / name
        with SegWriter(path, series, task=task, provenance=by, seg_type=seg_type) as writer:
            for frame in series.frames(indices=range(0, series.frame_count, stride)):
                masks = pattern(frame.index, classes=task.num_classes)
                writer.add(frame, masks, probabilities=masks * np.float32(0.75))
        return path

    return write
