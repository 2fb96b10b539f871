"""DICOM SEG of a segmentation, written by the worker and read back by another library."""

from __future__ import annotations

import json

import highdicom
import numpy as np
import pydicom
import pytest
import slicer
from dicom_cases import SECONDARY_CAPTURE, SHAPE, SPACING, header
from pydicom.uid import generate_uid
from SAM2UNetLib import Inputs
from SAM2UNetLib.Runs import addToDatabase
from SAM2UNetLib.SegmentationLogic import SegmentationLogic

from tests.worker.conftest import dciodvfy

__all__ = ["dciodvfy"]  # a fixture


@pytest.fixture
def task(bundle):
    return json.loads((bundle / "configs" / "task.json").read_text(encoding="utf-8"))


def export(session, run, node, *, folder, output):
    session.exportDicomSeg(node, source=folder, output=output)
    told = run(session)
    assert told[-1] == ("exported", str(output)), told
    return highdicom.seg.segread(output)


def asymmetric(count):
    masks = np.zeros((count, 1, *SHAPE[1:]), np.uint8)
    for k in range(count):
        masks[k, 0, 2 + k : 7 + k, 1:4] = 1
        masks[k, 0, 0, 9 - k] = 1
    return masks


@pytest.mark.parametrize("reverse", [False, True])
def test_each_ct_slice_gets_its_own_mask(session, run, volume, task, ct, tmp_path, reverse):
    folder, array, uids = ct
    matrix = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    matrix[:3, 3] = (20, 30, 100)
    masks = asymmetric(len(array))
    held, stored = array, masks
    if reverse:  # a volume whose slices run down: left-handed, as other readers make it
        matrix[2, 2], matrix[2, 3] = -SPACING[0], 100 + SPACING[0] * 3
        held, stored = array[::-1].copy(), masks[::-1].copy()
    node = volume(held, matrix=matrix)
    result = SegmentationLogic().apply(Inputs.extract(node, "volume"), stored, task)
    seg = export(session, run, result, folder=folder, output=tmp_path / "s.dcm")
    got = seg.get_pixels_by_source_instance(uids, segment_numbers=[1])[..., 0]
    assert np.array_equal(got, masks[:, 0])
    described = seg.get_segment_description(1)
    assert described.algorithm_type.value == "AUTOMATIC"
    assert described.segmented_property_type.value == "68496003"
    assert seg.StudyInstanceUID == pydicom.dcmread(folder / "1.dcm").StudyInstanceUID


def test_an_edit_in_slicer_is_in_the_file(session, run, volume, task, ct, tmp_path):
    folder, array, uids = ct
    matrix = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    matrix[:3, 3] = (20, 30, 100)
    node = volume(array, matrix=matrix)
    result = SegmentationLogic().apply(Inputs.extract(node, "volume"), asymmetric(len(array)), task)
    by_hand = np.zeros(SHAPE, np.uint8)
    by_hand[1, 10, 8] = 1
    segment_id = result.GetSegmentation().GetNthSegmentID(0)
    slicer.util.updateSegmentBinaryLabelmapFromArray(by_hand, result, segment_id, node)
    seg = export(session, run, result, folder=folder, output=tmp_path / "s.dcm")
    got = seg.get_pixels_by_source_instance(uids, segment_numbers=[1])[..., 0]
    assert np.array_equal(got, by_hand)
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"


def test_a_clip_s_frames_refer_to_the_frames_of_the_file(session, run, sequence, task, tmp_path):
    frames = np.random.default_rng(10).integers(0, 256, (4, *SHAPE[1:], 3), np.uint8)
    ds = header(SECONDARY_CAPTURE)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "ES", 1, 1
    ds.NumberOfFrames, ds.FrameTime = 4, 40
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = frames.tobytes()
    folder = tmp_path / "clip"
    folder.mkdir()
    ds.save_as(folder / "clip.dcm", enforce_file_format=True)
    browser = sequence(frames[:, None])
    masks = asymmetric(4)
    part = Inputs.extract(browser, "range", between=(1, 3))
    node = SegmentationLogic().apply(part, masks[1:], task)
    seg = export(session, run, node, folder=folder, output=tmp_path / "s.dcm")
    got = seg.get_pixels_by_source_frame(
        ds.SOPInstanceUID, [2, 3, 4], segment_numbers=[1], ignore_spatial_locations=True
    )[..., 0]
    assert np.array_equal(got, masks[1:, 0])


def test_a_segmentation_without_segments_is_not_exported(session, volume, ct):
    folder, array, _ = ct
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "other")
    put_reference(node, volume(array))
    session.exportDicomSeg(node, source=folder, output=folder.parent / "s.dcm")
    ((kind, message, remedy),) = session.poll()
    assert (kind, message) == ("failed", "other has no segments")
    assert "draw a segment" in remedy


def put_reference(node, image):
    node.SetReferenceImageGeometryParameterFromVolumeNode(image)
    node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), image.GetID())


def drawn(node, image, name, voxels):
    """Draw a segment as Segment Editor does, and return its ID."""
    segment_id = node.GetSegmentation().AddEmptySegment("", name)
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, segment_id, image)
    return segment_id


def test_what_a_person_drew_and_edited_is_saved_and_says_so(
    session, run, volume, task, ct, tmp_path, dciodvfy
):
    """A result, the same result edited, and two segments by hand, one with a code of its own."""
    folder, array, uids = ct
    matrix = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    matrix[:3, 3] = (20, 30, 100)
    node = volume(array, matrix=matrix)
    masks = asymmetric(len(array))
    result = SegmentationLogic().apply(
        Inputs.extract(node, "volume"), masks, task, tags={"SAM2UNet.Weights": "cd" * 32}
    )
    (ours,) = result.GetSegmentation().GetSegmentIDs()
    first, second = np.zeros((2, *SHAPE), np.uint8)
    first[1, 10, 8] = second[2, 3:5, 3:5] = 1
    drawn(result, node, "Fold", first)
    coded = drawn(result, node, "Stent", second)
    entry = "Segmentation category and type - DICOM master list~SCT^260787004^Physical object"
    entry += "~SCT^65818007^Stent~^^~Anatomic codes - DICOM master list~SCT^71854001^Colon~^^"
    result.GetSegmentation().GetSegment(coded).SetTag("TerminologyEntry", entry)

    seg = export(session, run, result, folder=folder, output=tmp_path / "before.dcm")
    assert dciodvfy(tmp_path / "before.dcm") == []
    kinds = [item.SegmentAlgorithmType for item in seg.SegmentSequence]
    assert kinds == ["AUTOMATIC", "MANUAL", "MANUAL"]
    labels = [item.SegmentLabel for item in seg.SegmentSequence]
    assert labels == ["Polyp", "Fold", "Stent"]
    assert seg.get_segment_description(2).segmented_property_type.value == "85756007"  # tissue
    assert seg.get_segment_description(3).segmented_property_type.value == "65818007"
    assert seg.get_segment_description(3).anatomic_regions[0].value == "71854001"
    (identification,) = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert "cd" * 32 in str(identification.AlgorithmParameters)
    for number, expected in enumerate((masks[:, 0], first, second), start=1):
        got = seg.get_pixels_by_source_instance(uids, segment_numbers=[number])[..., 0]
        assert np.array_equal(got, expected)

    masks[0, 0, 5, 5] ^= 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(masks[:, 0], result, ours, node)
    seg = export(session, run, result, folder=folder, output=tmp_path / "after.dcm")
    kinds = [item.SegmentAlgorithmType for item in seg.SegmentSequence]
    assert kinds == ["SEMIAUTOMATIC", "MANUAL", "MANUAL"]
    assert np.array_equal(
        seg.get_pixels_by_source_instance(uids, segment_numbers=[1])[..., 0], masks[:, 0]
    )


def test_a_study_outside_the_allowed_folders_is_refused_and_nothing_is_written(
    session, run, volume, task, tmp_path
):
    node = volume(np.zeros(SHAPE, np.int16))
    result = SegmentationLogic().apply(Inputs.extract(node, "volume"), asymmetric(4), task)
    session.exportDicomSeg(result, source="/", output=tmp_path / "s.dcm")
    told = run(session)
    assert told[-1][0] == "failed"
    assert not (tmp_path / "s.dcm").exists()
    assert not list(session.worker.exchange.glob("*.dcm"))


class Database:
    """The part of CTK's `ctkDICOMDatabase` that is used; notes in which order."""

    def __init__(self, *, isOpen: bool) -> None:
        self.isOpen, self.asked = isOpen, []

    def prepareInsert(self):
        self.asked.append("prepare")

    def insert(self, filePath, storeFile=True, generateThumbnail=True):
        self.asked.append((filePath, storeFile, generateThumbnail))

    def updateDisplayedFields(self):
        self.asked.append("fields")


def test_the_file_goes_into_slicer_s_database_as_a_copy_without_a_picture(scene, monkeypatch):
    for isOpen, expected in ((True, ["prepare", ("a.dcm", True, False), "fields"]), (False, [])):
        database = Database(isOpen=isOpen)
        monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
        addToDatabase("a.dcm")
        assert database.asked == expected
    monkeypatch.delattr(slicer, "dicomDatabase")
    addToDatabase("a.dcm")  # Slicer without its DICOM module
