"""SEG at its limits: sources with faults, results that cannot be written, very many frames."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from sam2unet_core.dicom.seg import FrameSpool, SegWriter
from sam2unet_core.dicom.uids import Provenance
from sam2unet_core.errors import DataError
from sam2unet_core.task import Task
from sam2unet_core.types import Frame, Series

Write = Callable[..., Path]
Make = Callable[..., Series]
MaskOf = Callable[..., NDArray[np.bool_]]
Validate = Callable[[Path], list[str]]


def test_an_error_leaves_no_file(
    make_series: Make, task: Task, provenance: Provenance, tmp_path: Path
) -> None:
    series = make_series("endoscopy_video")
    frame = next(series.frames())
    with (
        pytest.raises(DataError, match=r"mask of \(8, 8\) for frames of \(37, 53\)"),
        SegWriter(tmp_path / "seg.dcm", series, task=task, provenance=provenance) as writer,
    ):
        writer.add(frame, np.zeros((2, 8, 8), bool))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_a_seg_is_refused_with_the_reason(
    make_series: Make, task: Task, provenance: Provenance, tmp_path: Path, mask_of: MaskOf
) -> None:
    series = make_series("endoscopy_video")
    frame = next(series.frames())
    path = tmp_path / "seg.dcm"

    def write(masks: NDArray[np.bool_] | None, seg_type: str) -> None:
        with SegWriter(path, series, task=task, provenance=provenance, seg_type=seg_type) as writer:
            if masks is not None:
                writer.add(frame, masks)

    with pytest.raises(DataError, match="no frame was segmented"):
        write(None, "binary")
    with pytest.raises(DataError, match="1 masks for the 2 classes"):
        write(mask_of(0, classes=1), "binary")
    with pytest.raises(DataError, match="needs the probabilities"):
        write(mask_of(0), "fractional")
    with pytest.raises(DataError, match="the classes overlap"):
        write(np.ones((2, 37, 53), bool), "labelmap")
    series.source.headers[0] = None
    with pytest.raises(DataError, match="is not DICOM"):
        write(mask_of(0), "binary")
    assert list(tmp_path.iterdir()) == []


def test_a_label_map_takes_the_likeliest_of_overlapping_classes(
    make_series: Make, task: Task, provenance: Provenance, tmp_path: Path
) -> None:
    series = make_series("endoscopy_video")
    frame = next(series.frames())
    probabilities = np.zeros((2, 37, 53), np.float32)
    probabilities[:, 4, 6] = (0.6, 0.9)
    probabilities[:, 5, 6] = (0.9, 0.6)
    probabilities[:, 6, 6] = (0.4, 0.7)
    path = tmp_path / "seg.dcm"
    with SegWriter(path, series, task=task, provenance=provenance, seg_type="labelmap") as writer:
        writer.add(frame, probabilities >= 0.5, probabilities=probabilities)
    labels = pydicom.dcmread(path).pixel_array
    assert labels[4:8, 6].tolist() == [2, 1, 2, 0]
    assert np.count_nonzero(labels) == 3


def test_frames_beyond_four_gib_are_written_without_the_empty_ones(
    make_series: Make, task: Task, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sam2unet_core.dicom.seg.LARGEST", 8 * (37 * 53 // 8 + 1))
    file = pydicom.dcmread(write(make_series("endoscopy_video"), task))
    assert file.NumberOfFrames == 8  # of 10, frame 1 being empty in both classes
    sources = [
        item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for item in file.PerFrameFunctionalGroupsSequence
    ]
    assert sources == [1, 1, 3, 3, 4, 4, 5, 5]
    monkeypatch.setattr("sam2unet_core.dicom.seg.LARGEST", 100)
    with pytest.raises(DataError, match="more than the 4 GiB"):
        write(make_series("endoscopy_video"), task)


def test_a_lossy_source_makes_a_lossy_result(make_series: Make, task: Task, write: Write) -> None:
    file = pydicom.dcmread(write(make_series("endoscopy_video"), task))
    assert file.LossyImageCompression == "01"
    assert file.LossyImageCompressionMethod == "ISO_14496_10"
    assert pydicom.dcmread(write(make_series("ct_volume"), task)).LossyImageCompression == "00"


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 3), (8, 8), (37, 53)])
def test_frames_follow_one_another_bit_by_bit(shape: tuple[int, int], tmp_path: Path) -> None:
    noise = np.random.default_rng(3)
    frames = noise.random((9, *shape)) < 0.4
    frames[[2, 5]] = False
    spool = FrameSpool(shape, bits=1, folder=tmp_path)
    for frame in frames:
        spool.append(frame)
    keep = [True, False, True, True, True, False, True, True, True]
    with (tmp_path / "bits").open("wb") as stream:
        spool.write(stream, keep=keep)
    content = (tmp_path / "bits").read_bytes()
    assert len(content) == spool.size(sum(keep))
    assert len(content) % 2 == 0
    bits = [bool(byte >> n & 1) for byte in content for n in range(8)]
    wanted = frames[keep].ravel().tolist()
    assert bits[: len(wanted)] == wanted
    assert not any(bits[len(wanted) :])


def test_frames_of_an_object_whose_class_has_one_frame_only_are_told_by_their_place(
    make_series: Make, task: Task, write: Write, dciodvfy: Validate
) -> None:
    series = make_series("ultrasound_cine")
    single = "1.2.840.10008.5.1.4.1.1.6.1"  # Ultrasound Image Storage, not Multi-frame
    instances = (replace(series.instances[0], sop_class_uid=single),)
    path = write(replace(series, instances=instances), task)
    assert dciodvfy(path) == []
    items = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    places = [item.FrameContentSequence[0].InStackPositionNumber for item in items]
    assert places == [1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("uid", ["999.999.2.107", "1.02.3", None])
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_source_without_valid_uids_is_referred_to_by_stand_ins(
    uid: str | None,
    make_series: Make,
    task: Task,
    write: Write,
    dciodvfy: Validate,
    tmp_path: Path,
) -> None:
    source = tmp_path / "source.dcm"
    source.write_bytes(b"what the file holds")
    series = make_series("endoscopy_video")
    series.dataset(0).StudyInstanceUID = uid
    instances = (replace(series.instances[0], sop_instance_uid=uid, path=source),)
    broken = replace(series, instances=instances, study_uid=uid, series_uid=uid)
    path = write(broken, task)
    assert dciodvfy(path) == []
    file = pydicom.dcmread(path)
    listed = file.ReferencedSeriesSequence[0]
    used = listed.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID
    item = file.PerFrameFunctionalGroupsSequence[-1].DerivationImageSequence[0]
    assert item.SourceImageSequence[0].ReferencedSOPInstanceUID == used
    for found in (file.StudyInstanceUID, listed.SeriesInstanceUID, used):
        assert found.startswith("2.25.")
    assert "references use substitutes" in file.ImageComments


def test_several_volumes_at_one_place_are_told_apart_by_their_place_in_the_stack(
    make_series: Make, task: Task, write: Write, dciodvfy: Validate
) -> None:
    series = make_series("enhanced_ct")
    twice = series.geometry.positions[[0, 1, 0, 1]]
    path = write(replace(series, geometry=replace(series.geometry, positions=twice)), task)
    assert dciodvfy(path) == []
    items = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    indices = [tuple(item.FrameContentSequence[0].DimensionIndexValues) for item in items]
    assert len(set(indices)) == 8
    assert items[4].PlanePositionSequence[0].ImagePositionPatient == [40, -60.5, 120.25]


def test_nothing_of_a_broken_header_is_quoted_in_a_warning(
    make_series: Make, task: Task, write: Write, recwarn: pytest.WarningsRecorder
) -> None:
    series = make_series("endoscopy_video")
    header = series.dataset(0)
    with pytest.warns(UserWarning, match="Invalid value"):
        header["PatientBirthDate"] = pydicom.DataElement("PatientBirthDate", "DA", "SENTINEL")
    recwarn.clear()
    write(replace(series, series_uid="SENTINEL"), task)
    assert not [w for w in recwarn if "SENTINEL" in str(w.message)]


def test_memory_does_not_grow_with_the_frames(
    make_series: Make, one_class: Task, provenance: Provenance, tmp_path: Path
) -> None:
    frames, side = 300, 512  # 9.8 MB packed
    series = replace(make_series("endoscopy_video", frames=frames), rows=side, columns=side)
    mask = np.ones((1, side, side), bool)
    pixels = np.zeros((side, side, 3), np.uint8)
    tracemalloc.start()
    with SegWriter(tmp_path / "seg.dcm", series, task=one_class, provenance=provenance) as writer:
        for index in range(frames):
            writer.add(Frame(pixels, index, 0, index + 1), mask)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "seg.dcm").stat().st_size > frames * side * side // 8
    assert peak < 4e6
