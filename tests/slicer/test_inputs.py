"""Which voxels the network sees, and in which order."""

from __future__ import annotations

import numpy as np
import pytest
from SAM2UNetLib import Inputs
from SAM2UNetLib.Errors import InputError

# (k, j, i) of 4 x 5 x 6; right-hand axes: i to the right hand, j to the front, k to the head
NUMBERED = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
AXIAL = ([-1, 0, 0], [0, 1, 0])
CORONAL = ([-1, 0, 0], [0, 0, 1])
SAGITTAL = ([0, -1, 0], [0, 0, 1])
LPS = np.diag([-1.0, -1.0, 2.5, 1.0])


def test_a_whole_volume_is_its_slices_as_they_are_stored(volume):
    found = Inputs.extract(volume(NUMBERED), "volume")
    assert np.array_equal(found.array, NUMBERED)
    assert (found.channels, found.whole, found.count) == ("grey", True, 4)


def test_an_axial_view_takes_the_stored_slice(volume, slice_view):
    node = volume(NUMBERED, matrix=LPS)
    view = slice_view(*AXIAL, through=[-2, -2, 5.0])
    found = Inputs.extract(node, "slice", sliceNode=view)
    assert np.array_equal(found.array, NUMBERED[2:3])


def test_a_coronal_view_has_the_head_on_top_and_the_left_on_the_right(volume, slice_view):
    node = volume(NUMBERED, matrix=LPS)  # i runs to the left, j to the back, k to the head
    view = slice_view(*CORONAL, through=[-2, -3, 4.0])
    found = Inputs.extract(node, "slice", sliceNode=view)
    assert np.array_equal(found.array[0], NUMBERED[::-1, 3, :])


def test_a_sagittal_view_has_the_back_on_the_right(volume, slice_view):
    node = volume(NUMBERED, matrix=LPS)
    view = slice_view(*SAGITTAL, through=[-4, -3, 4.0])
    found = Inputs.extract(node, "slice", sliceNode=view)
    assert np.array_equal(found.array[0], NUMBERED[::-1, :, 4])


def test_permuted_and_negative_axes_show_the_same_picture(volume, slice_view):
    # i to the head, j to the right, k to the front: a volume stored as sagittal rows
    matrix = np.array([[0, 1.0, 0, 0], [0, 0, 1.0, 0], [2.5, 0, 0, 0], [0, 0, 0, 1]])
    node = volume(NUMBERED, matrix=matrix)
    view = slice_view(*AXIAL, through=[1, 1, 5.0])  # i = 2
    found = Inputs.extract(node, "slice", sliceNode=view)
    # right of the picture is the patient's left (-j), top is the front (+k)
    assert np.array_equal(found.array[0], NUMBERED[::-1, ::-1, 2])


def test_the_parent_transform_moves_the_plane(volume, slice_view, transform):
    node = volume(NUMBERED, matrix=LPS)
    shift = np.eye(4)
    shift[2, 3] = 5.0
    transform(node, shift)
    found = Inputs.extract(node, "slice", sliceNode=slice_view(*AXIAL, through=[0, 0, 7.5]))
    assert np.array_equal(found.array[0], NUMBERED[1])


def test_a_turned_parent_transform_makes_an_axial_view_cut_another_axis(
    volume, slice_view, transform
):
    node = volume(NUMBERED, matrix=np.eye(4))
    transform(node, [[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # j to the head
    found = Inputs.extract(node, "slice", sliceNode=slice_view(*AXIAL, through=[0, 0, 3]))
    assert found.array.shape == (1, 4, 6)
    assert set(found.array.ravel()) == set(NUMBERED[:, 3, :].ravel())


def test_a_range_is_cut_across_the_view(volume, slice_view):
    node = volume(NUMBERED, matrix=LPS)
    view = slice_view(*CORONAL, through=[-2, -3, 4.0])
    found = Inputs.extract(node, "range", sliceNode=view, between=(1, 3))
    assert np.array_equal(found.array, np.moveaxis(NUMBERED[::-1, 1:4, :], 1, 0))
    assert not found.whole


def test_colours_lose_their_alpha_and_nothing_else(volume):
    rgba = np.random.default_rng(1).integers(0, 256, (1, 5, 6, 4), np.uint8)
    found = Inputs.extract(volume(rgba), "volume")
    assert found.channels == "rgb"
    assert np.array_equal(found.array, rgba[..., :3])


def test_deep_colours_are_scaled_by_their_depth_and_dark_ones_refused(volume):
    colours = np.full((1, 2, 2, 3), 0xFFFF, np.uint16)
    assert Inputs.extract(volume(colours), "volume").array.max() == 255
    with pytest.raises(InputError, match="16-bit colours with a maximum of only 1023"):
        Inputs.extract(volume(colours // 64), "volume")
    assert Inputs.extract(volume(np.zeros_like(colours)), "volume").array.max() == 0


def test_frames_of_a_sequence_keep_their_order(sequence):
    frames = np.random.default_rng(2).integers(0, 256, (7, 1, 5, 6, 3), np.uint8)
    browser = sequence(frames)
    assert Inputs.describe(browser).kind == "sequence"
    assert np.array_equal(Inputs.extract(browser, "sequence").array, frames[:, 0])
    some = Inputs.extract(browser, "range", between=(2, 4))
    assert np.array_equal(some.array, frames[2:5, 0])
    assert [part.item for part in some.parts] == [2, 3, 4]


def test_eight_bit_greys_go_as_they_are_and_others_by_the_window_that_is_shown(volume):
    assert Inputs.extract(volume(NUMBERED.astype(np.uint8)), "volume").window is None
    node = volume(NUMBERED)
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevel(350, 40)
    assert Inputs.extract(node, "volume").window == {"center": 40.0, "width": 350.0}


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("slice", {}, "no slice view"),
        ("range", {"between": (2, 9)}, "3 to 10 are not among the 4 slices"),
        ("sequence", {}, "is a single volume"),
        ("all", {}, "cannot be segmented"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_what_to_do(volume, what, options, message):
    with pytest.raises(InputError, match=message):
        Inputs.extract(volume(NUMBERED), what, **options)


def test_a_view_beside_the_volume_is_refused(volume, slice_view):
    with pytest.raises(InputError, match="outside the volume"):
        Inputs.extract(volume(NUMBERED), "slice", sliceNode=slice_view(*AXIAL, through=[0, 0, 99]))


def test_a_label_map_is_no_picture(scene):
    node = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    with pytest.raises(InputError, match="contains no image"):
        Inputs.describe(node)


def test_a_transform_that_is_not_linear_allows_volumes_but_no_views(volume, slice_view, scene):
    node = volume(NUMBERED)
    bend = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
    import vtk

    grid = vtk.vtkThinPlateSplineTransform()
    bend.SetAndObserveTransformToParent(grid)
    node.SetAndObserveTransformNodeID(bend.GetID())
    assert np.array_equal(Inputs.extract(node, "volume").array, NUMBERED)
    with pytest.raises(InputError, match="not linear"):
        Inputs.extract(node, "slice", sliceNode=slice_view(*AXIAL, through=[0, 0, 1]))


class Database:
    """`slicer.dicomDatabase` with the values of one file."""

    def __init__(self, values):
        self.values = values

    def instanceValue(self, uid, tag):
        return self.values.get(tag, "") if uid == "1.2.3" else ""


def from_dicom(node, *, modality=None, uids=""):
    """Mark a node as Slicer's DICOM reader does."""
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)  # Qt does it in Slicer
    if modality:
        hierarchy.SetItemAttribute(item, "DICOM.Modality", modality)
    if uids:
        node.SetAttribute("DICOM.instanceUIDs", uids)
    return Inputs.describe(node)


def accepting(**accepts):
    return {"accepts": {"modalities": [], "sop_classes": [], "photometric": [], **accepts}}


def test_an_image_that_did_not_come_from_dicom_has_no_source(volume):
    info = Inputs.describe(volume(NUMBERED))
    task = accepting(modalities=["US"], sop_classes=["1.2"])
    assert info.sourceFor(task) is None
    assert info.unchecked(task) == ""


def test_the_source_has_what_the_dicom_database_knows(volume, monkeypatch):
    import slicer

    values = {"0008,0016": "1.2.840.10008.5.1.4.1.1.2", "0028,0004": "MONOCHROME1"}
    database = Database({**values, "0008,0060": "CT"})
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    info = from_dicom(volume(NUMBERED), uids="1.2.3")
    task = accepting(modalities=["US"], sop_classes=["1.2"], photometric=["RGB"])
    assert info.sourceFor(task) == {
        "modality": "CT",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "photometric": "MONOCHROME1",
    }
    assert info.unchecked(task) == ""


def test_a_modality_that_the_file_lacks_is_not_stated_rather_than_unknown(volume, monkeypatch):
    import slicer

    database = Database({"0008,0016": "1.2.840.10008.5.1.4.1.1.2"})
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    info = from_dicom(volume(NUMBERED), uids="1.2.3")
    task = accepting(modalities=["US"])
    assert info.sourceFor(task)["modality"] is None
    assert info.unchecked(task) == ""


def test_a_sop_class_that_slicer_does_not_know_hinders_no_task_that_does_not_ask_for_it(volume):
    info = from_dicom(volume(NUMBERED), modality="CT", uids="9.9")  # of a scene from elsewhere
    known = {"modality": "CT", "sop_class_uid": None, "photometric": "MONOCHROME2"}
    assert info.sourceFor(accepting(modalities=["US"])) == known
    asking = accepting(modalities=["CT"], sop_classes=["1.2.840.10008.5.1.4.1.1.2"])
    assert info.sourceFor(asking) is None
    assert "does not know the SOP class of this image" in info.unchecked(asking)


def test_a_dicom_image_of_which_slicer_knows_nothing_is_not_refused_for_that(volume):
    info = from_dicom(volume(NUMBERED), uids="9.9")
    task = accepting(modalities=["US"], sop_classes=["1.2"])
    assert info.sourceFor(task) is None
    assert "does not know the modality and the SOP class of this image" in info.unchecked(task)
