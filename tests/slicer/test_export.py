"""DICOM SEG of a segmentation, written by the worker and read back by another library."""

from __future__ import annotations

import json

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
from SAM2UNetLib import Inputs
from SAM2UNetLib.SegmentationLogic import SegmentationLogic

CT_STORAGE = UID("1.2.840.10008.5.1.4.1.1.2")
SECONDARY_CAPTURE = UID("1.2.840.10008.5.1.4.1.1.7.4")  # multi-frame true colour
SHAPE = (4, 12, 10)
SPACING = (2.5, 0.8, 0.6)  # slice, row, column


def header(sop_class):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = generate_uid()
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.PatientID, ds.PatientName = "P1", "Doe^J"
    ds.PatientBirthDate = ds.PatientSex = ds.AccessionNumber = ds.StudyID = ""
    ds.StudyDate = ds.StudyTime = ds.ReferringPhysicianName = ds.Manufacturer = ""
    ds.Rows, ds.Columns = SHAPE[1:]
    return ds


@pytest.fixture
def ct(tmp_path):
    """A stack of four slices whose file names and instance numbers run against their places."""
    array = np.random.default_rng(9).integers(-500, 500, SHAPE).astype(np.int16)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    folder, uids = tmp_path / "ct", []
    folder.mkdir()
    for k, plane in enumerate(array):
        ds = header(CT_STORAGE)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "CT", 1, len(array) - k
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [-20, -30, 100 + SPACING[0] * k]
        ds.PixelSpacing, ds.SliceThickness = list(SPACING[1:]), SPACING[0]
        ds.PositionReferenceIndicator = ""
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleIntercept, ds.RescaleSlope = 0, 1
        ds.PixelData = plane.tobytes()
        ds.save_as(folder / f"{len(array) - k}.dcm", enforce_file_format=True)
        uids.append(ds.SOPInstanceUID)
    return folder, array, uids


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
