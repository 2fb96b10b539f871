"""A clip's frames and their segmentations, kept in step by Slicer's sequence browser."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from mask_cases import sequenceMasks
from SAM2UNetLib import Inputs
from SAM2UNetLib.Errors import ResultError
from SAM2UNetLib.SegmentationLogic import SegmentationLogic

COUNT, ROWS, COLUMNS = 5, 8, 10


@pytest.fixture
def clip(sequence):
    frames = np.random.default_rng(3).integers(0, 256, (COUNT, 1, ROWS, COLUMNS, 3), np.uint8)
    return sequence(frames)


def masks_of_frames(count=COUNT):
    """Another mask in each frame, without symmetry."""
    masks = np.zeros((count, 2, ROWS, COLUMNS), np.uint8)
    for frame in range(count):
        masks[frame, 0, frame : frame + 2, 1:4] = 1
        masks[frame, 1, 7, 9 - frame] = 1
    return masks


def shown(node, browser, item, segment=0):
    """The segment as it is seen when a frame is chosen, in that frame's geometry."""
    browser.SetSelectedItemNumber(item)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    volume = browser.GetProxyNode(browser.GetMasterSequenceNode())
    segment_id = node.GetSegmentation().GetNthSegmentID(segment)
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume)[0]


def test_each_frame_shows_its_own_masks(clip, two_classes):
    masks = masks_of_frames()
    node = SegmentationLogic().apply(Inputs.extract(clip, "sequence"), masks, two_classes)
    for item in (4, 0, 2):
        assert np.array_equal(shown(node, clip, item), masks[item, 0])
        assert np.array_equal(shown(node, clip, item, 1), masks[item, 1])
    got, items = sequenceMasks(node, clip, two_classes)
    assert items == [0, 1, 2, 3, 4]
    assert np.array_equal(got, masks)


def test_the_segmentations_have_the_times_of_the_frames(clip, two_classes):
    node = SegmentationLogic().apply(
        Inputs.extract(clip, "sequence"), masks_of_frames(), two_classes
    )
    held, frames = clip.GetSequenceNode(node), clip.GetMasterSequenceNode()
    assert [held.GetNthIndexValue(n) for n in range(COUNT)] == [
        "0.00",
        "0.04",
        "0.08",
        "0.12",
        "0.16",
    ]
    assert held.GetIndexUnit() == frames.GetIndexUnit() == "s"
    role = node.GetReferenceImageGeometryReferenceRole()
    assert node.GetNodeReference(role) is clip.GetProxyNode(frames)


def test_an_edit_of_a_frame_stays_with_that_frame(clip, two_classes):
    masks = masks_of_frames()
    node = SegmentationLogic().apply(Inputs.extract(clip, "sequence"), masks, two_classes)
    shown(node, clip, 1)
    by_hand = np.zeros((1, ROWS, COLUMNS), np.uint8)
    by_hand[0, 6, 6] = 1
    segment_id = node.GetSegmentation().GetNthSegmentID(0)
    volume = clip.GetProxyNode(clip.GetMasterSequenceNode())
    slicer.util.updateSegmentBinaryLabelmapFromArray(by_hand, node, segment_id, volume)
    got, _ = sequenceMasks(node, clip, two_classes)
    expected = masks.copy()
    expected[1, 0] = by_hand[0]
    assert np.array_equal(got, expected)


def test_frames_that_were_not_looked_at_have_no_segmentation(clip, two_classes):
    masks = np.zeros((2, 2, ROWS, COLUMNS), np.uint8)  # looked at, nothing found
    node = SegmentationLogic().apply(
        Inputs.extract(clip, "range", between=(1, 2)), masks, two_classes
    )
    got, items = sequenceMasks(node, clip, two_classes)
    assert items == [1, 2]
    assert not got.any()


def test_a_second_run_goes_into_the_same_sequence_and_undo_brings_the_first_back(
    clip, scene, two_classes
):
    masks = masks_of_frames()
    first, second = SegmentationLogic(), SegmentationLogic()
    node = first.apply(Inputs.extract(clip, "range", between=(0, 3)), masks[:4], two_classes)
    again = second.apply(
        Inputs.extract(clip, "range", between=(3, 4)),
        np.ones((2, 2, ROWS, COLUMNS), np.uint8),
        two_classes,
        segmentationNode=node,
    )
    assert again is node
    got, items = sequenceMasks(node, clip, two_classes)
    assert items == [0, 1, 2, 3, 4]
    assert got[3:].all()
    assert np.array_equal(got[:3], masks[:3])
    second.undo()
    got, items = sequenceMasks(node, clip, two_classes)
    assert items == [0, 1, 2, 3]
    assert np.array_equal(got, masks[:4])


def test_undo_of_the_first_run_removes_all_it_made(clip, scene, two_classes):
    logic, before = SegmentationLogic(), scene.GetNumberOfNodesByClass("vtkMRMLSequenceNode")
    logic.apply(Inputs.extract(clip, "sequence"), masks_of_frames(), two_classes)
    logic.undo()
    assert scene.GetNumberOfNodesByClass("vtkMRMLSequenceNode") == before
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_a_segmentation_that_does_not_follow_the_frames_is_refused(clip, scene, two_classes):
    loose = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "loose")
    with pytest.raises(ResultError, match="does not follow the frames"):
        SegmentationLogic().begin(
            Inputs.extract(clip, "sequence"), two_classes, segmentationNode=loose
        )


def test_a_transform_of_the_shown_frame_is_the_segmentation_s_too(clip, transform, two_classes):
    volume = clip.GetProxyNode(clip.GetMasterSequenceNode())
    moved = np.eye(4)
    moved[0, 3] = 50
    transform(volume, moved)
    masks = masks_of_frames()
    node = SegmentationLogic().apply(Inputs.extract(clip, "sequence"), masks, two_classes)
    assert node.GetTransformNodeID() == volume.GetTransformNodeID()
    assert np.array_equal(shown(node, clip, 3), masks[3, 0])
