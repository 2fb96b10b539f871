"""DICOM SEG of a segmentation, written by the worker and read back by another library."""

from __future__ import annotations

import json

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_cases import SECONDARY_CAPTURE, SHAPE, SPACING, header
from pydicom.uid import generate_uid
from SAM2UNetLib import Inputs
from SAM2UNetLib.Runs import addToDatabase
from SAM2UNetLib.SegmentationLogic import SegmentationLogic


@pytest.fixture
def task(bundle):
    return json.loads((bundle / "configs" / "task.json").read_text(encoding="utf-8"))


def export(session, run, node, source, *, task, bundle, folder, output):
    session.exportDicomSeg(
        node,
        source,
        task=task,
        source=folder,
        output=output,
        load={"bundle": str(bundle), "device": "cpu"},
    )
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
def test_each_ct_slice_gets_its_own_mask(session, run, volume, bundle, task, ct, tmp_path, reverse):
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
    seg = export(
        session,
        run,
        result,
        node,
        task=task,
        bundle=bundle,
        folder=folder,
        output=tmp_path / "s.dcm",
    )
    got = seg.get_pixels_by_source_instance(uids, segment_numbers=[1])[..., 0]
    assert np.array_equal(got, masks[:, 0])
    described = seg.get_segment_description(1)
    assert described.algorithm_type.value == "AUTOMATIC"
    assert described.segmented_property_type.value == "68496003"
    assert seg.StudyInstanceUID == pydicom.dcmread(folder / "1.dcm").StudyInstanceUID


def test_an_edit_in_slicer_is_in_the_file(session, run, volume, bundle, task, ct, tmp_path):
    import slicer

    folder, array, uids = ct
    matrix = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    matrix[:3, 3] = (20, 30, 100)
    node = volume(array, matrix=matrix)
    result = SegmentationLogic().apply(Inputs.extract(node, "volume"), asymmetric(len(array)), task)
    by_hand = np.zeros(SHAPE, np.uint8)
    by_hand[1, 10, 8] = 1
    segment_id = result.GetSegmentation().GetNthSegmentID(0)
    slicer.util.updateSegmentBinaryLabelmapFromArray(by_hand, result, segment_id, node)
    seg = export(
        session,
        run,
        result,
        node,
        task=task,
        bundle=bundle,
        folder=folder,
        output=tmp_path / "s.dcm",
    )
    got = seg.get_pixels_by_source_instance(uids, segment_numbers=[1])[..., 0]
    assert np.array_equal(got, by_hand)


def test_a_clip_s_frames_refer_to_the_frames_of_the_file(
    session, run, sequence, bundle, task, tmp_path
):
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
    seg = export(
        session,
        run,
        node,
        browser,
        task=task,
        bundle=bundle,
        folder=folder,
        output=tmp_path / "s.dcm",
    )
    got = seg.get_pixels_by_source_frame(
        ds.SOPInstanceUID, [2, 3, 4], segment_numbers=[1], ignore_spatial_locations=True
    )[..., 0]
    assert np.array_equal(got, masks[1:, 0])


def test_a_segmentation_of_another_task_is_not_exported(session, run, volume, task, scene, ct):
    folder, array, _ = ct
    other = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "other")
    session.exportDicomSeg(
        other, volume(array), task=task, source=folder, output=folder.parent / "s.dcm"
    )
    ((kind, message, _remedy),) = session.poll()
    assert kind == "failed"
    assert "no segment that Colon polyp made for Polyp" in message


def test_a_study_outside_the_allowed_folders_is_refused_and_nothing_is_written(
    session, run, volume, bundle, task, tmp_path
):
    node = volume(np.zeros(SHAPE, np.int16))
    result = SegmentationLogic().apply(Inputs.extract(node, "volume"), asymmetric(4), task)
    session.exportDicomSeg(
        result,
        node,
        task=task,
        source="/",
        output=tmp_path / "s.dcm",
        load={"bundle": str(bundle), "device": "cpu"},
    )
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
    import slicer

    for isOpen, expected in ((True, ["prepare", ("a.dcm", True, False), "fields"]), (False, [])):
        database = Database(isOpen=isOpen)
        monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
        addToDatabase("a.dcm")
        assert database.asked == expected
    monkeypatch.delattr(slicer, "dicomDatabase")
    addToDatabase("a.dcm")  # Slicer without its DICOM module
