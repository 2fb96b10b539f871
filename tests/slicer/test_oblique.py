"""A slice view at an angle: what the network sees, and which voxels get its masks."""

from __future__ import annotations

import numpy as np
import pytest
from mask_cases import masksOf
from SAM2UNetLib import Inputs
from SAM2UNetLib.SegmentationLogic import SegmentationLogic
from SAM2UNetLib.Voxels import EMPTY, Points, sizeOf

SIZE = 24
RIGHT = np.array([1.0, 0.0, 0.0])
UP = np.array([0.0, np.cos(np.radians(30)), np.sin(np.radians(30))])
CENTRE = np.array([11.5, 11.5, 11.5])


@pytest.fixture
def ramp(volume):
    """A volume whose value is a linear function of space: a linear reslice gives it exactly."""
    k, j, i = np.indices((SIZE, SIZE, SIZE)).astype(np.float32)
    return volume(3 * i + 5 * j - 2 * k + 100, matrix=np.eye(4))


def test_the_picture_holds_the_values_of_the_plane(ramp, slice_view):
    found = Inputs.extract(ramp, "slice", sliceNode=slice_view(RIGHT, UP, CENTRE))
    (height, width), place = found.array.shape[1:], found.parts[0].place
    assert width == SIZE
    # a pixel's place: from the voxel that its column and row stand for
    rows, columns = np.divmod(place.pixelIndices, width)
    normal = np.cross(RIGHT, UP)
    offsets = place.voxelIndices - CENTRE
    depth = offsets @ normal
    on_plane = place.voxelIndices - depth[:, None] * normal  # foot of each voxel on the plane
    values = on_plane @ [3, 5, -2] + 100
    inside = (np.abs(on_plane - CENTRE) < 10).all(axis=1)
    got = found.array[0, rows, columns]
    # the pixel is at most half a pitch off along the view's two axes
    assert np.abs(got - values)[inside].max() <= 0.5 * (3 + abs(UP @ [3, 5, -2])) + 1e-3
    assert inside.sum() > 300
    assert height > SIZE / 2


def test_each_column_of_voxels_gets_the_one_nearest_to_the_plane(ramp, slice_view):
    found = Inputs.extract(ramp, "slice", sliceNode=slice_view(RIGHT, UP, CENTRE))
    i, j, k = found.parts[0].place.voxelIndices.T
    assert len(set(zip(i.tolist(), j.tolist(), strict=True))) == len(i) == SIZE * SIZE
    plane = 11.5 + (j - 11.5) * np.tan(np.radians(30))
    assert np.abs(k - plane).max() <= 0.5 + 1e-9


def test_a_mask_goes_to_the_voxels_it_was_seen_in_and_to_no_others(ramp, slice_view, two_classes):
    found = Inputs.extract(ramp, "slice", sliceNode=slice_view(RIGHT, UP, CENTRE))
    height, width = found.array.shape[1:]
    masks = np.zeros((1, 2, height, width), np.uint8)
    masks[0, 0, :, 15:] = 1  # the patient's left half from i = 15 on
    masks[0, 1, : height // 2] = 1  # the upper half
    result = SegmentationLogic().apply(found, masks, two_classes)
    got = masksOf(result, ramp, two_classes).astype(bool)
    k, j, i = np.indices((SIZE, SIZE, SIZE))
    crossed = np.floor(11.5 + (j - 11.5) * np.tan(np.radians(30)) + 0.5) == k
    assert np.array_equal(got[:, 0], crossed & (i >= 15))
    upper = got[:, 1]
    assert upper.sum() > 100
    assert not (upper & ~crossed).any()
    assert j[upper].min() >= 11


@pytest.mark.parametrize("moved", [False, True])
def test_anisotropic_voxels_and_a_parent_transform_change_nothing(
    volume, slice_view, transform, two_classes, moved
):
    matrix = np.diag([-0.5, -0.8, 3.0, 1.0])
    node = volume(np.zeros((10, 30, 40), np.int16), matrix=matrix)
    shift = np.eye(4)
    shift[:3, 3] = (7, -3, 11) if moved else (0, 0, 0)
    transform(node, shift)
    through = np.array([-10.0, -12.0, 15.01]) + shift[:3, 3]
    found = Inputs.extract(node, "slice", sliceNode=slice_view([-1, 0, 0.3], [0, 1, 0], through))
    result = SegmentationLogic().apply(
        found, np.ones((1, 2, *found.array.shape[1:]), np.uint8), two_classes
    )
    got = masksOf(result, node, two_classes)[:, 0].astype(bool)
    k, _, i = np.indices(got.shape)
    x, z = -0.5 * i, 3.0 * k
    distance = (x + 10.0) * 0.3 + (z - 15.01)
    # the plane moves 0.15 mm a column, a voxel is 3 mm deep
    assert np.array_equal(got, np.abs(distance) <= 1.5)
    assert got.sum() == 40 * 30
    pitch = found.array.shape[2] * 0.5
    assert pitch == pytest.approx(np.hypot(20.0, 6.0), abs=1.5)


def test_colours_are_cut_at_an_angle_too(volume, slice_view):
    array = np.zeros((SIZE, SIZE, SIZE, 3), np.uint8)
    array[..., 0], array[..., 2] = 200, 50
    node = volume(array, matrix=np.eye(4))
    found = Inputs.extract(node, "slice", sliceNode=slice_view(RIGHT, UP, CENTRE))
    assert found.channels == "rgb"
    assert found.array.dtype == np.uint8
    middle = found.array[0, found.array.shape[1] // 2, SIZE // 2]
    assert middle.tolist() == [200, 0, 50]


def test_a_tilt_below_half_a_voxel_takes_the_plane_itself(volume, slice_view):
    array = np.arange(SIZE**3, dtype=np.int32).reshape(SIZE, SIZE, SIZE)
    node = volume(array, matrix=np.eye(4))
    view = slice_view(RIGHT, [0, 1, 0.01], [11.5, 11.5, 12.1])
    assert np.array_equal(Inputs.extract(node, "slice", sliceNode=view).array[0], array[12])


def test_single_voxels_are_read_and_written_in_an_array_that_holds_only_some_of_them():
    rng = np.random.default_rng(13)
    indices = np.unique(rng.integers(0, 9, (200, 3)), axis=0).astype(np.int32)
    points = Points(indices)
    values = rng.random(len(indices)) < 0.5
    for extent in (
        (0, 8, 0, 8, 0, 8),
        (2, 5, 0, 8, 3, 12),
        (-3, 2, 4, 4, 1, 6),
        (9, 9, 0, 1, 0, 1),
    ):
        array = np.full(sizeOf(extent), 7, np.uint8)
        points.put(values, array, extent, label=3)
        expected = np.full_like(array, 7)
        inside = np.zeros(len(indices), bool)
        for n, (i, j, k) in enumerate(indices.tolist()):
            at = (k - extent[4], j - extent[2], i - extent[0])
            if all(0 <= p < size for p, size in zip(at, array.shape, strict=True)):
                expected[at] = 3 * values[n]
                inside[n] = True
        assert np.array_equal(array, expected)
        assert np.array_equal(points.take(array, extent, label=3), values & inside)
    chosen = indices[values]
    low, high = chosen.min(axis=0), chosen.max(axis=0)
    assert points.bounds(values) == (low[0], high[0], low[1], high[1], low[2], high[2])
    assert points.bounds(np.zeros(len(indices), bool)) == EMPTY


@pytest.mark.parametrize("beside", [0, 5])
def test_a_segment_that_holds_other_voxels_keeps_them_when_it_grows(
    ramp, slice_view, two_classes, beside
):
    import slicer

    logic = SegmentationLogic()
    node = logic.apply(
        Inputs.extract(ramp, "slice", sliceNode=slice_view([1, 0, 0], [0, 1, 0], [1, 1, beside])),
        np.ones((1, 2, SIZE, SIZE), np.uint8),
        two_classes,
    )
    found = Inputs.extract(ramp, "slice", sliceNode=slice_view(RIGHT, UP, CENTRE))
    shape = (1, 2, *found.array.shape[1:])
    logic.apply(found, np.ones(shape, np.uint8), two_classes, segmentationNode=node)
    k, j, _ = np.indices((SIZE, SIZE, SIZE))
    crossed = np.floor(11.5 + (j - 11.5) * np.tan(np.radians(30)) + 0.5) == k
    for index in (0, 1):
        segment_id = node.GetSegmentation().GetNthSegmentID(index)
        got = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, ramp) > 0
        assert np.array_equal(got, crossed | (k == beside))
    logic.undo()
    assert np.array_equal(masksOf(node, ramp, two_classes)[:, 0] > 0, k == beside)
