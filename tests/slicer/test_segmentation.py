"""Masks in Slicer's segmentations, voxel for voxel, and what else a good segmentation has."""

from __future__ import annotations

import numpy as np
import pytest
import vtk
from mask_cases import masksOf
from SAM2UNetLib import Inputs, Labelmaps
from SAM2UNetLib.Errors import ResultError
from SAM2UNetLib.SegmentationLogic import SegmentationLogic

SHAPE = (6, 9, 7)
ANISOTROPIC = np.array([[-0.7, 0, 0, 12.0], [0, -0.7, 0, -3.0], [0, 0, 5.0, 40.0], [0, 0, 0, 1.0]])
PERMUTED = np.array([[0, 0, 2.0, 5.0], [-0.5, 0, 0, 7.0], [0, 0.9, 0, -1.0], [0, 0, 0, 1.0]])
LEFT_HANDED = np.diag([-0.7, -0.7, -5.0, 1.0])
turn = np.radians(25)
TURNED = np.array(
    [
        [np.cos(turn), -np.sin(turn), 0, 30.0],
        [np.sin(turn), np.cos(turn), 0, -10.0],
        [0, 0, 1, 4.0],
        [0, 0, 0, 1],
    ]
)


def truth(shape=SHAPE):
    """Two structures without any symmetry, which overlap."""
    nerve, vessel = np.zeros(shape, bool), np.zeros(shape, bool)
    nerve[1:4, 2:7, 1:3] = True
    nerve[4, 2, 1] = True
    vessel[2:5, 5:8, 2:6] = True
    vessel[0, 0, 6] = True
    return np.stack([nerve, vessel], axis=1)  # (N, K, H, W)


def exported(node, segment_id, volume):
    """What Slicer's own export to a label map of the volume's geometry holds."""
    import slicer

    return slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume)


@pytest.mark.parametrize("matrix", [np.eye(4), ANISOTROPIC, PERMUTED, LEFT_HANDED])
@pytest.mark.parametrize("moved", [False, True])
def test_a_volume_s_masks_come_out_voxel_for_voxel(volume, transform, two_classes, matrix, moved):
    node = volume(np.zeros(SHAPE, np.int16), matrix=matrix)
    if moved:
        transform(node, TURNED)
    masks = truth().astype(np.uint8)
    result = SegmentationLogic().apply(Inputs.extract(node, "volume"), masks, two_classes)
    ids = result.GetSegmentation().GetSegmentIDs()
    for index, segment_id in enumerate(ids):
        assert np.array_equal(exported(result, segment_id, node), truth()[:, index])
    assert np.array_equal(masksOf(result, node, two_classes), masks)


def test_a_colour_volume_s_masks_come_out_voxel_for_voxel(volume, two_classes):
    node = volume(np.zeros((1, 9, 7, 3), np.uint8))
    masks = truth()[2:3].astype(np.uint8)
    result = SegmentationLogic().apply(Inputs.extract(node, "volume"), masks, two_classes)
    ids = result.GetSegmentation().GetSegmentIDs()
    assert np.array_equal(exported(result, ids[1], node), truth()[2:3, 1])


def test_a_surface_lies_in_space_where_its_voxels_lie(volume, transform, two_classes):
    node = volume(np.zeros(SHAPE, np.int16), matrix=ANISOTROPIC)
    transform(node, TURNED)
    result = SegmentationLogic().apply(
        Inputs.extract(node, "volume"), truth().astype(np.uint8), two_classes
    )
    surface = vtk.vtkPolyData()
    result.GetClosedSurfaceRepresentation(result.GetSegmentation().GetSegmentIDs()[0], surface)
    k, j, i = np.argwhere(truth()[:, 0]).T
    voxels = ANISOTROPIC @ np.stack([i, j, k, np.ones_like(i)])
    low, high = voxels[:3].min(axis=1), voxels[:3].max(axis=1)
    bounds = np.array(surface.GetBounds())
    voxel = np.array([0.7, 0.7, 5.0])  # surfaces are smoothed
    assert np.all(np.abs(bounds[::2] - low) < voxel)
    assert np.all(np.abs(bounds[1::2] - high) < voxel)
    assert result.GetTransformNodeID() == node.GetTransformNodeID()


def test_one_slice_gets_no_surface_and_changes_no_other(volume, slice_view, two_classes):
    node = volume(np.zeros(SHAPE, np.int16))
    logic = SegmentationLogic()
    result = logic.apply(
        Inputs.extract(node, "volume"), truth().astype(np.uint8), two_classes, surface=False
    )
    view = slice_view([-1, 0, 0], [0, 0, 1], through=[-1, -4, 2])  # j = 4, the head on top
    picked = Inputs.extract(node, "slice", sliceNode=view)
    masks = np.zeros((1, 2, 6, 7), np.uint8)
    masks[0, 0, 0, 6] = 1  # top right: k = 5, i = 6
    again = logic.apply(picked, masks, two_classes, segmentationNode=result)
    expected = truth()
    expected[:, :, 4, :] = False
    expected[5, 0, 4, 6] = True
    assert again is result
    assert np.array_equal(masksOf(result, node, two_classes), expected)
    assert not result.GetSegmentation().ContainsRepresentation(Labelmaps.SURFACE)


def test_segments_carry_name_colour_code_and_algorithm(volume, two_classes):
    import slicer

    node = volume(np.zeros(SHAPE, np.int16))
    result = SegmentationLogic().apply(
        Inputs.extract(node, "volume"), truth().astype(np.uint8), two_classes
    )
    segment = result.GetSegmentation().GetNthSegment(0)

    def tag(name):
        value = vtk.reference("")
        assert segment.GetTag(name, value)
        return str(value)

    assert segment.GetName() == "Nerve"
    assert segment.GetColor() == pytest.approx((1.0, 0.0, 0.2))
    assert tag("DICOM.SegmentAlgorithmType") == "AUTOMATIC"
    assert tag("DICOM.SegmentAlgorithmName") == "SAM2-UNet arm 1.2.0"
    entry = slicer.vtkSlicerTerminologyEntry()
    logic = slicer.modules.terminologies.logic()
    assert logic.DeserializeTerminologyEntry(tag("TerminologyEntry"), entry)
    assert entry.GetCategoryObject().GetCodeValue() == "91723000"
    assert entry.GetTypeObject().GetCodeValue() == "84782009"
    assert entry.GetTypeObject().GetCodeMeaning() == "Nerve"
    assert entry.GetRegionObject().GetCodeValue() == "40983000"


def test_the_result_refers_to_the_volume_and_lies_under_its_study(volume, two_classes):
    import slicer

    node = volume(np.zeros(SHAPE, np.int16), matrix=ANISOTROPIC)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    subject = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "subject")
    study = hierarchy.CreateStudyItem(subject, "study")
    hierarchy.CreateItem(study, node)
    result = SegmentationLogic().apply(
        Inputs.extract(node, "volume"), truth().astype(np.uint8), two_classes
    )
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    assert result.GetNodeReference(role) is node
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(result)) == study
    name = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    geometry = slicer.vtkSegmentationConverter
    image = slicer.vtkOrientedImageData()
    text = result.GetSegmentation().GetConversionParameter(name)
    assert geometry.DeserializeImageGeometry(text, image)
    assert image.GetDimensions() == (7, 9, 6)
    assert image.GetSpacing() == pytest.approx((0.7, 0.7, 5.0))


def test_undo_of_a_new_segmentation_leaves_the_scene_as_it_was(volume, scene, two_classes):
    node = volume(np.zeros(SHAPE, np.int16))
    logic = SegmentationLogic()
    logic.apply(Inputs.extract(node, "volume"), truth().astype(np.uint8), two_classes)
    logic.undo()
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert not logic.canUndo


def test_undo_in_an_existing_segmentation_brings_back_its_voxels(volume, two_classes):
    import slicer

    node = volume(np.zeros(SHAPE, np.int16))
    first, second = SegmentationLogic(), SegmentationLogic()
    all_of_it = Inputs.extract(node, "volume")
    result = first.apply(all_of_it, truth().astype(np.uint8), two_classes)
    result.GetSegmentation().AddEmptySegment("mine", "Nerve")  # a person's, of the same name
    by_hand = np.zeros(SHAPE, np.uint8)
    by_hand[3, 3, 3] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(by_hand, result, "mine", node)
    part = Inputs.extract(node, "range", between=(1, 2))
    second.apply(part, np.ones((2, 2, 9, 7), np.uint8), two_classes, segmentationNode=result)
    changed = truth()
    changed[1:3] = True
    assert np.array_equal(masksOf(result, node, two_classes), changed)
    assert np.array_equal(exported(result, "mine", node), by_hand)
    second.undo()
    assert np.array_equal(masksOf(result, node, two_classes), truth())
    assert np.array_equal(exported(result, "mine", node), by_hand)


def test_pictures_can_be_shown_one_by_one_and_another_threshold_makes_no_node(
    volume, scene, two_classes
):
    node = volume(np.zeros(SHAPE, np.int16))
    logic, masks = SegmentationLogic(), truth().astype(np.uint8)
    result = logic.begin(Inputs.extract(node, "volume"), two_classes)
    for picture in (3, 0):
        logic.updatePartial(picture, masks[picture])
    expected = np.zeros_like(masks)
    expected[[0, 3]] = masks[[0, 3]]
    assert np.array_equal(masksOf(result, node, two_classes), expected)
    logic.complete(masks)
    fewer = masks.copy()
    fewer[:, 0] = 0
    assert logic.complete(fewer) is result
    assert np.array_equal(masksOf(result, node, two_classes), fewer)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


def test_a_segmentation_under_another_transform_is_refused(volume, transform, two_classes):
    node = volume(np.zeros(SHAPE, np.int16))
    extraction, masks = Inputs.extract(node, "volume"), truth().astype(np.uint8)
    result = SegmentationLogic().apply(extraction, masks, two_classes)
    transform(node, TURNED)
    with pytest.raises(ResultError, match="has another parent transform"):
        SegmentationLogic().apply(extraction, masks, two_classes, segmentationNode=result)


def test_a_segmentation_of_another_grid_is_refused(volume, two_classes):
    masks = truth().astype(np.uint8)
    first = volume(np.zeros(SHAPE, np.int16))
    result = SegmentationLogic().apply(Inputs.extract(first, "volume"), masks, two_classes)
    other = Inputs.extract(volume(np.zeros(SHAPE, np.int16), matrix=ANISOTROPIC), "volume")
    with pytest.raises(ResultError, match="another voxel grid"):
        SegmentationLogic().apply(other, masks, two_classes, segmentationNode=result)


def test_masks_of_another_size_are_refused(volume, two_classes):
    extraction = Inputs.extract(volume(np.zeros(SHAPE, np.int16)), "volume")
    with pytest.raises(ResultError, match=r"masks of shape \(6, 1, 9, 7\)"):
        SegmentationLogic().apply(extraction, np.zeros((6, 1, 9, 7), np.uint8), two_classes)


def test_the_module_s_terminology_files_load_and_know_every_class(scene, repository):
    import json

    import slicer
    from SAM2UNetLib import Terminology

    logic = slicer.modules.terminologies.logic()
    assert Terminology.load(logic) == ["SAM2-UNet", "SAM2-UNet regions"]
    for path in (repository / "monai_bundle/configs/tasks").glob("*.json"):
        for item in json.loads(path.read_text(encoding="utf-8"))["classes"]:
            category, kind = (
                slicer.vtkSlicerTerminologyCategory(),
                slicer.vtkSlicerTerminologyType(),
            )
            (_, code, _), (_, type_code, _) = item["category"], item["type"]
            category.SetCodingSchemeDesignator("SCT")
            category.SetCodeValue(code)
            numbers = range(logic.GetNumberOfTypesInTerminologyCategory("SAM2-UNet", category))
            found = set()
            for number in numbers:
                logic.GetNthTypeInTerminologyCategory("SAM2-UNet", category, number, kind)
                found.add(kind.GetCodeValue())
            assert type_code in found


def test_the_terminology_files_are_those_that_the_tasks_give(repository):
    import importlib.util

    path = repository / "slicer_extension" / "make_terminology.py"
    spec = importlib.util.spec_from_file_location("make_terminology", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    for name, text in made.files().items():
        assert (made.FOLDER / name).read_text(encoding="utf-8") == text
