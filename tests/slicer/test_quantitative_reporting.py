"""What QuantitativeReporting does with our segmentation of a CT: dcmqi, fed by segments' tags."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
import vtk
from dicom_cases import SHAPE, SPACING
from SAM2UNetLib import Inputs
from SAM2UNetLib.SegmentationLogic import SegmentationLogic

TO_LPS = np.diag([-1.0, -1.0, 1.0])


@pytest.fixture
def program():
    found = Path(sys.executable).with_name("itkimage2segimage")
    if not found.exists():
        pytest.skip("needs dcmqi: pip install dcmqi")
    return found


def tag(segment, name):
    value = vtk.reference("")
    assert segment.GetTag(name, value), name
    return str(value)


def coded(entry):
    return {
        "CodeValue": entry.GetCodeValue(),
        "CodingSchemeDesignator": entry.GetCodingSchemeDesignator(),
        "CodeMeaning": entry.GetCodeMeaning(),
    }


def attributes(segment):
    """dcmqi's description of a segment, from nothing but what Slicer knows of it."""
    import slicer

    entry = slicer.vtkSlicerTerminologyEntry()
    logic = slicer.modules.terminologies.logic()
    assert logic.DeserializeTerminologyEntry(tag(segment, "TerminologyEntry"), entry)
    described = {
        "labelID": 1,
        "SegmentLabel": segment.GetName(),
        "SegmentDescription": segment.GetName(),
        "SegmentAlgorithmType": tag(segment, "DICOM.SegmentAlgorithmType"),
        "SegmentAlgorithmName": tag(segment, "DICOM.SegmentAlgorithmName"),
        "SegmentedPropertyCategoryCodeSequence": coded(entry.GetCategoryObject()),
        "SegmentedPropertyTypeCodeSequence": coded(entry.GetTypeObject()),
        "recommendedDisplayRGBValue": [round(255 * part) for part in segment.GetColor()],
    }
    if entry.GetRegionObject().GetCodeValue():
        described["AnatomicRegionSequence"] = coded(entry.GetRegionObject())
    return described


def write_label_map(values, node, path):
    """Write voxels on a volume's grid, as Slicer's export to a file does."""
    import slicer

    toRas = slicer.util.arrayFromVTKMatrix(_matrix(node))
    columns = TO_LPS @ toRas[:3, :3]
    spacing = np.linalg.norm(columns, axis=0)
    image = SimpleITK.GetImageFromArray(values.astype(np.uint8))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((columns / spacing).ravel().tolist())
    image.SetOrigin((TO_LPS @ toRas[:3, 3]).tolist())
    SimpleITK.WriteImage(image, path)


def _matrix(node):
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


def test_its_converter_writes_our_segments_and_they_read_back_equal(
    program, volume, two_classes, ct, tmp_path
):
    import slicer

    folder, array, uids = ct
    matrix = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    matrix[:3, 3] = (20, 30, 100)
    node = volume(array, matrix=matrix)
    masks = np.zeros((len(array), 2, *SHAPE[1:]), np.uint8)
    for k in range(len(array)):
        masks[k, 0, 2 + k : 7 + k, 1:4] = 1
        masks[k, 1, 5:9, 3:6] = 1  # overlaps the first
    masks[0, 1], masks[3, 0] = 0, 0
    result = SegmentationLogic().apply(Inputs.extract(node, "volume"), masks, two_classes)
    segmentation, files, described = result.GetSegmentation(), [], []
    for name in segmentation.GetSegmentIDs():
        files.append(tmp_path / f"{name}.nrrd")
        values = slicer.util.arrayFromSegmentBinaryLabelmap(result, name, node)
        write_label_map(values, node, files[-1])
        described.append([attributes(segmentation.GetSegment(name))])
    about = {
        "ContentCreatorName": "Reader",
        "SeriesDescription": "Segmentation",
        "SeriesNumber": "300",
        "InstanceNumber": "1",
        "BodyPartExamined": "",
        "segmentAttributes": described,
    }
    meta, output = tmp_path / "meta.json", tmp_path / "seg.dcm"
    meta.write_text(json.dumps(about), encoding="utf-8")
    done = subprocess.run(
        [
            program,
            *("--inputImageList", ",".join(map(str, files))),
            *("--inputDICOMList", ",".join(map(str, sorted(folder.iterdir())))),
            *("--inputMetadata", meta),
            *("--outputDICOM", output),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seg = highdicom.seg.segread(output)
    got = seg.get_pixels_by_source_instance(
        uids,
        segment_numbers=[1, 2],
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    assert np.array_equal(np.moveaxis(got, 3, 1), masks)
    first = seg.get_segment_description(1)
    assert (first.SegmentLabel, first.algorithm_type.value) == ("Nerve", "AUTOMATIC")
    assert first.SegmentAlgorithmName == "SAM2-UNet arm 1.2.0"
    assert first.segmented_property_category.value == "91723000"
    assert first.segmented_property_type.value == "84782009"
    assert first.anatomic_regions[0].value == "40983000"
    assert seg.get_segment_description(2).segmented_property_type.value == "59820001"
    source = pydicom.dcmread(folder / "1.dcm")
    assert (seg.StudyInstanceUID, seg.PatientID) == (source.StudyInstanceUID, source.PatientID)
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID
