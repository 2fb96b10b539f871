"""What a SEG says: valid for every kind of source, complete, the same each time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from sam2unet_core.dicom.seg import SegWriter
from sam2unet_core.dicom.uids import Provenance, derived_uid
from sam2unet_core.task import Task
from sam2unet_core.types import Series

Write = Callable[..., Path]
Make = Callable[..., Series]
MaskOf = Callable[..., NDArray[np.bool_]]
Validate = Callable[[Path], list[str]]

UNKNOWN_TO_THE_VALIDATOR = ("Information Object Not found", "SegmentNumber not monotonically")
"""Debian's dciodvfy knows no label maps, nor their segment 0."""


@pytest.mark.parametrize("seg_type", ["binary", "fractional"])
def test_every_source_gives_a_valid_seg(
    seg_type: str, series: Series, task: Task, write: Write, dciodvfy: Validate
) -> None:
    assert dciodvfy(write(series, task, seg_type=seg_type)) == []


def test_a_label_map_has_no_faults_but_those_of_a_validator_that_knows_none(
    series: Series, task: Task, write: Write, dciodvfy: Validate
) -> None:
    errors = dciodvfy(write(series, task, seg_type="labelmap"))
    assert [e for e in errors if not any(known in e for known in UNKNOWN_TO_THE_VALIDATOR)] == []


def test_the_validator_finds_a_fault_that_is_there(
    make_series: Make, task: Task, write: Write, dciodvfy: Validate
) -> None:
    path = write(make_series("endoscopy_video"), task)
    file = pydicom.dcmread(path)
    del file.SegmentSequence
    file.save_as(path)
    assert any("SegmentSequence" in line for line in dciodvfy(path))


def test_what_made_it_is_said_in_full(make_series: Make, task: Task, write: Write) -> None:
    file = pydicom.dcmread(write(make_series("endoscopy_video"), task))
    polyp, tool = file.SegmentSequence
    for segment in (polyp, tool):
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
        assert algorithm.AlgorithmName == "SAM2-UNet polyp_and_tool"
        assert algorithm.AlgorithmVersion == "0.1.0 (task 0.1.0)"
        for part in ("ab" * 32, "runtime=exact", "precision=float32", "threshold=0.5"):
            assert part in algorithm.AlgorithmParameters
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert segment.TrackingID
    assert polyp.TrackingUID != tool.TrackingUID
    assert polyp.SegmentedPropertyTypeCodeSequence[0].CodeValue == "68496003"
    assert polyp.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert polyp.AnatomicRegionSequence[0].CodeValue == "71854001"
    assert "AnatomicRegionSequence" not in tool
    assert file.ContentCreatorName == ""
    assert file.SeriesDescription == "SAM2-UNet Polyp and instrument"
    assert "not for diagnosis" in file.ImageComments
    assert "starter model" in file.ImageComments


def test_the_colour_is_the_cielab_of_the_class(
    make_series: Make, one_class: Task, write: Write
) -> None:
    red = replace(one_class, classes=(replace(one_class.classes[0], rgb=(255, 0, 0)),))
    file = pydicom.dcmread(write(make_series("endoscopy_video"), red))
    # sRGB red, D50: L* 54.29, a* 80.81, b* 69.89 (ICC); stored per PS3.3 C.10.7.1.1
    lightness, a, b = file.SegmentSequence[0].RecommendedDisplayCIELabValue
    assert lightness == pytest.approx(54.29 * 65535 / 100, rel=0.03)
    assert a == pytest.approx((80.81 + 128) * 65535 / 255, rel=0.03)
    assert b == pytest.approx((69.89 + 128) * 65535 / 255, rel=0.03)


def test_a_forced_task_is_said(
    make_series: Make, task: Task, provenance: Provenance, write: Write
) -> None:
    path = write(make_series("ct_volume"), task, by=replace(provenance, forced_task=True))
    file = pydicom.dcmread(path)
    assert "task forced" in file.ImageComments
    algorithm = file.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert "forced_task=yes" in algorithm.AlgorithmParameters


def test_patient_and_study_are_the_sources(make_series: Make, task: Task, write: Write) -> None:
    file = pydicom.dcmread(write(make_series("ct_volume"), task))
    assert str(file.PatientName) == "Müller^Test"
    assert (file.PatientID, file.PatientSex, file.StudyID) == ("P-1", "F", "S1")
    assert file.StudyInstanceUID == "1.2.826.0.1.3680043.8.498.1"
    assert file.FrameOfReferenceUID == "1.2.826.0.1.3680043.8.498.9"
    (listed,) = file.ReferencedSeriesSequence
    assert listed.SeriesInstanceUID == "1.2.826.0.1.3680043.8.498.2"
    assert [item.ReferencedSOPClassUID for item in listed.ReferencedInstanceSequence] == [
        "1.2.840.10008.5.1.4.1.1.2"
    ] * 4
    assert file.SeriesInstanceUID not in (listed.SeriesInstanceUID, file.StudyInstanceUID)


def test_values_that_break_their_vr_are_left_empty(
    make_series: Make, task: Task, write: Write, dciodvfy: Validate
) -> None:
    series = make_series("endoscopy_video")
    source = series.dataset(0)
    for keyword, vr, value in (
        ("PatientBirthDate", "DA", "sometime"),
        ("PatientSex", "CS", "weiblich"),
        ("StudyTime", "TM", "99:99"),
    ):
        with pytest.warns(UserWarning, match="Invalid value"):
            source[keyword] = pydicom.DataElement(keyword, vr, value)
    path = write(series, task)
    file = pydicom.dcmread(path)
    assert (file.PatientBirthDate, file.PatientSex, file.StudyTime) == ("", "", "")
    assert dciodvfy(path) == []


def test_nothing_found_is_a_result_with_every_frame(
    make_series: Make, one_class: Task, provenance: Provenance, tmp_path: Path, dciodvfy: Validate
) -> None:
    series = make_series("endoscopy_video")
    path = tmp_path / "empty.dcm"
    with SegWriter(path, series, task=one_class, provenance=provenance) as writer:
        for frame in series.frames():
            writer.add(frame, np.zeros((1, 37, 53), bool))
    file = pydicom.dcmread(path)
    assert file.NumberOfFrames == 5
    assert not any(file.PixelData)
    assert dciodvfy(path) == []


def test_the_same_result_gives_the_same_bytes_and_another_key_other_uids(
    make_series: Make, task: Task, provenance: Provenance, write: Write
) -> None:
    series = make_series("ultrasound_cine")
    first = write(series, task, name="a.dcm")
    again = write(series, task, name="b.dcm")
    other = write(series, task, name="c.dcm", by=replace(provenance, key="77" * 32))
    assert first.read_bytes() == again.read_bytes()
    one, two = pydicom.dcmread(first), pydicom.dcmread(other)
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert one[keyword].value != two[keyword].value
        assert one[keyword].value.startswith("2.25.")
    assert (one.ContentDate, one.ContentTime) == ("20250304", "050607")


def test_uids_have_the_form_of_a_uuid_and_differ_by_role() -> None:
    uids = {derived_uid("k", role) for role in ("seg", "overlay")} | {derived_uid("k2", "seg")}
    assert len(uids) == 3
    for uid in uids:
        assert uid.is_valid
        assert int(uid.removeprefix("2.25.")) < 2**128


def test_names_of_files_and_texts_of_the_series_stay_out(
    make_series: Make, task: Task, write: Write, tmp_path: Path
) -> None:
    series = make_series("endoscopy_video")
    header = series.dataset(0)
    header.SeriesDescription = header.PatientComments = header.ImageComments = "SENTINEL one"
    header.InstitutionName = header.OperatorsName = "SENTINEL two"
    named = tmp_path / "SENTINEL.dcm"
    instances = (replace(series.instances[0], path=named),)
    broken = replace(series, instances=instances, source_path=named, description="SENTINEL")
    assert b"SENTINEL" not in write(broken, task).read_bytes()
