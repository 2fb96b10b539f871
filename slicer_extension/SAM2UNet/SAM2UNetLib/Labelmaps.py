"""Voxels in and out of a segment, without a detour through a labelmap of the whole volume.

Slicer's `updateSegmentBinaryLabelmapFromArray` imports the whole volume for each segment, and
applies a parent transform twice where the segmentation does not share the volume's. Here a segment
gets a labelmap of its own in the volume's index space; only the voxels asked for are written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from .Errors import ResultError
from .Slices import Matrix, arrayOf, matrixOf
from .Voxels import EMPTY, Box, Extent, Points, sizeOf, union

BINARY = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
SURFACE = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()


def readVoxels(
    segmentation: Any, segmentId: str, voxels: Box | Points, *, toRas: Matrix
) -> NDArray[np.bool_]:
    """Return which of some voxels belong to a segment.

    Args:
        segmentation: vtkSegmentation.
        segmentId: which segment of it.
        voxels: in the index space of `toRas`.
        toRas: `(4, 4)` from voxel indices to the segmentation's own coordinates, in mm.

    Raises:
        ResultError: the segment has voxels of another grid.
    """
    segment = segmentation.GetSegment(segmentId)
    image = segment.GetRepresentation(BINARY)
    if image is None or 0 in sizeOf(image.GetExtent()):
        return np.zeros(voxels.shape, bool)
    _checkGrid(image, toRas, segment.GetName())
    return voxels.take(_array(image), image.GetExtent(), label=segment.GetLabelValue())


def writeVoxels(
    segmentation: Any,
    segmentId: str,
    voxels: Box | Points,
    values: NDArray[np.bool_],
    *,
    toRas: Matrix,
) -> None:
    """Set which of some voxels belong to a segment; all other voxels stay as they are.

    Arguments as for `readVoxels`; `values` has the shape of `voxels`.

    Raises:
        ResultError: the segment has voxels of another grid.
    """
    if segmentation.IsSharedBinaryLabelmap(segmentId):
        segmentation.SeparateSegmentLabelmap(segmentId)
    segment = segmentation.GetSegment(segmentId)
    image, extent = segment.GetRepresentation(BINARY), EMPTY
    if image is not None and 0 not in sizeOf(image.GetExtent()):
        extent = image.GetExtent()
        _checkGrid(image, toRas, segment.GetName())
    wanted = union(extent, voxels.bounds(values))
    if 0 in sizeOf(wanted):
        return
    if wanted == extent:
        voxels.put(values, _array(image), extent, label=segment.GetLabelValue())
        image.GetPointData().GetScalars().Modified()
        image.Modified()
        return
    grown = _emptyLabelmap(wanted, toRas)
    target = _array(grown)
    if 0 not in sizeOf(extent):
        Box(extent).copy(_array(image), target, wanted, label=segment.GetLabelValue())
    voxels.put(values, target, wanted, label=1)
    segment.SetLabelValue(1)
    segment.AddRepresentation(BINARY, grown)
    segmentation.Modified()


def stateOf(segment: Any) -> tuple[str, int]:
    """Return what changes whenever the voxels of a segment may have changed."""
    image = segment.GetRepresentation(BINARY)
    return ("", 0) if image is None else (image.GetAddressAsString(""), image.GetMTime())


def count(segment: Any) -> int:
    """Return how many voxels belong to a segment."""
    return int(heldBy(segment)[1].sum())


def heldBy(segment: Any) -> tuple[Extent, NDArray[np.bool_]]:
    """Return the extent of a segment's labelmap, and which voxels of it belong to the segment."""
    image = segment.GetRepresentation(BINARY)
    if image is None or 0 in sizeOf(image.GetExtent()):
        return EMPTY, np.zeros(0, bool)
    return image.GetExtent(), _array(image) == segment.GetLabelValue()


def reserve(segmentation: Any, segmentId: str, extent: Extent, *, toRas: Matrix) -> None:
    """Make room for an extent at once, so that slice after slice can be written cheaply."""
    corners = np.zeros(sizeOf(extent), bool)
    image = segmentation.GetSegment(segmentId).GetRepresentation(BINARY)
    held = image.GetExtent() if image is not None else EMPTY
    wanted = union(held, extent)
    if wanted == held:
        return
    corners[0, 0, 0] = corners[-1, -1, -1] = True
    before = readVoxels(segmentation, segmentId, Box(extent), toRas=toRas)
    writeVoxels(segmentation, segmentId, Box(extent), before | corners, toRas=toRas)
    writeVoxels(segmentation, segmentId, Box(extent), before, toRas=toRas)


def _array(image: Any) -> NDArray[np.generic]:
    values = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    return values.reshape(sizeOf(image.GetExtent()))


def _emptyLabelmap(extent: Extent, toRas: Matrix) -> Any:
    image = slicer.vtkOrientedImageData()
    image.SetExtent(*extent)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    image.GetPointData().GetScalars().Fill(0)
    image.SetImageToWorldMatrix(matrixOf(toRas))
    return image


def _checkGrid(image: Any, toRas: Matrix, name: str) -> None:
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    step = float(np.linalg.norm(toRas[:3, :3], axis=0).min())
    if not np.allclose(arrayOf(matrix), toRas, rtol=0, atol=1e-3 * step):
        raise ResultError(
            f"the segment {name} has another voxel grid than the volume",
            "choose a new segmentation for this volume",
        )
