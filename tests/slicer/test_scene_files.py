"""A scene with results, saved and opened again."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from mask_cases import masksOf, sequenceMasks
from SAM2UNetLib import Inputs
from SAM2UNetLib.SegmentationLogic import SegmentationLogic


def saved_and_opened(scene, folder):
    """Write an .mrb, clear the scene and read it again."""
    path, work, cache = folder / "scene.mrb", folder / "work", slicer.vtkCacheManager()
    work.mkdir()
    cache.SetRemoteCacheDirectory(str(work))
    manager = slicer.vtkDataIOManager()
    manager.SetCacheManager(cache)
    scene.SetDataIOManager(manager)
    scene.SetRootDirectory(str(work))
    assert scene.WriteToMRB(str(path))
    scene.Clear(False)
    assert scene.ReadFromMRB(str(path), True)


def test_a_segmentation_survives_an_mrb(scene, volume, transform, two_classes, tmp_path):
    matrix = np.array([[0, 0, -2.0, 5], [-0.5, 0, 0, 7], [0, 0.9, 0, -1], [0, 0, 0, 1.0]])
    node = volume(np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7), matrix=matrix, name="ct")
    moved = np.eye(4)
    moved[:3, 3] = (30, -10, 4)
    transform(node, moved)
    masks = np.zeros((5, 2, 6, 7), np.uint8)
    masks[1:3, 0, 2:5, 3] = 1
    masks[2:5, 1, 4, 1:6] = 1
    SegmentationLogic().apply(Inputs.extract(node, "volume"), masks, two_classes)
    saved_and_opened(scene, tmp_path)
    node = scene.GetFirstNodeByName("ct")
    result = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert result.GetNodeReference(result.GetReferenceImageGeometryReferenceRole()) is node
    assert result.GetParentTransformNode() is node.GetParentTransformNode() is not None
    assert np.array_equal(masksOf(result, node, two_classes), masks)
    value = vtk.reference("")
    segment = result.GetSegmentation().GetNthSegment(0)
    assert segment.GetTag("DICOM.SegmentAlgorithmType", value)
    assert str(value) == "AUTOMATIC"
    assert segment.GetName() == "Nerve"


def test_a_clip_s_segmentations_survive_an_mrb(scene, sequence, two_classes, tmp_path):
    frames = np.random.default_rng(4).integers(0, 256, (3, 1, 8, 10, 3), np.uint8)
    masks = np.zeros((3, 2, 8, 10), np.uint8)
    for frame in range(3):
        masks[frame, 0, 1 + frame, 2:5] = 1
        masks[frame, 1, 2:7, frame] = 1
    SegmentationLogic().apply(Inputs.extract(sequence(frames), "sequence"), masks, two_classes)
    saved_and_opened(scene, tmp_path)
    browser = scene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
    proxy = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    got, items = sequenceMasks(proxy, browser, two_classes)
    assert items == [0, 1, 2]
    assert np.array_equal(got, masks)


def test_a_clip_whose_name_has_brackets_survives_an_mrb(scene, sequence, two_classes, tmp_path):
    """Slicer looks for what a saved sequence holds by a pattern of its name."""
    browser = sequence(np.zeros((2, 1, 8, 10, 3), np.uint8))
    browser.GetMasterSequenceNode().SetName("Colonoscopy [1]")
    browser.SetName("Colonoscopy [1] browser")
    masks = np.zeros((2, 2, 8, 10), np.uint8)
    masks[:, 0, 2:4, 3:6] = 1
    SegmentationLogic().apply(Inputs.extract(browser, "sequence"), masks, two_classes)
    saved_and_opened(scene, tmp_path)
    browser = scene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
    proxy = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    got, _ = sequenceMasks(proxy, browser, two_classes)
    assert np.array_equal(got, masks)
