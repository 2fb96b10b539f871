"""Gives a segmentation its volume's grid, parent transform and study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from . import Edits, Labelmaps
from .Clips import Clip
from .Errors import ResultError
from .Inputs import Extraction
from .Slices import arrayOf, matrixOf
from .Voxels import Box, sizeOf

REFERENCE_ROLE = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()


def referenceOf(segmentationNode: Any) -> Any:
    """Return the volume whose grid a segmentation has; None if it has none."""
    return segmentationNode.GetNodeReference(REFERENCE_ROLE)


def resultsOf(volume: Any) -> list[Any]:
    """Return the segmentations of a volume that hold a segment which this module made."""
    return [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        if referenceOf(node) is volume
        and any(Edits.isOurs(each) for each in Edits.segmentsOf(node.GetSegmentation()))
    ]


def localMatrix(volumeNode: Any) -> NDArray[np.float64]:
    """Return the `(4, 4)` matrix from voxel indices to the volume's own coordinates, in mm."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return arrayOf(matrix)


@dataclass(frozen=True)
class Grid:
    """The voxels that masks of a volume have: its own, or those of the video file it is part of.

    Attributes:
        toRas: `(4, 4)` from voxel indices to the volume's own coordinates, in mm.
        size: (slices, rows, columns).
    """

    toRas: NDArray[np.float64]
    size: tuple[int, int, int]

    @classmethod
    def of(cls, volumeNode: Any, clip: Clip | None = None) -> Grid:
        """Return the grid of a volume, or of a frame of a clip."""
        image = volumeNode.GetImageData()
        if image is None:  # its file may be missing
            raise ResultError(
                f"{volumeNode.GetName()} contains no image",
                "load the image again, or choose another segmentation",
            )
        i, j, k = image.GetDimensions()
        toRas = localMatrix(volumeNode)
        if clip is None:
            return cls(toRas, (k, j, i))
        return cls(toRas @ clip.fileToItem(), (k, clip.rows, clip.columns))

    @property
    def box(self) -> Box:
        """All of its voxels."""
        k, j, i = self.size
        return Box((0, i - 1, 0, j - 1, 0, k - 1))

    def describe(self, segmentationNode: Any) -> None:
        """Make it the grid on which a segmentation is edited."""
        image = slicer.vtkOrientedImageData()
        image.SetExtent(*self.box.extent)
        image.SetImageToWorldMatrix(matrixOf(self.toRas))
        converter = slicer.vtkSegmentationConverter
        text = converter.SerializeImageGeometry(image)
        name = converter.GetReferenceImageGeometryParameterName()
        segmentationNode.GetSegmentation().SetConversionParameter(name, text)


def attach(node: Any, volume: Any, toRas: NDArray[np.float64]) -> None:
    """Give a segmentation the volume's transform and geometry.

    The transform comes first: a labelmap that is imported under another one is moved twice.

    Raises:
        ResultError: its segments have another parent transform or voxel grid.
    """
    segmentation = node.GetSegmentation()
    filled = []
    for segmentId in segmentation.GetSegmentIDs():
        image = segmentation.GetSegment(segmentId).GetRepresentation(Labelmaps.BINARY)
        if image is not None and 0 not in sizeOf(image.GetExtent()):
            filled.append(segmentId)
    if filled and node.GetTransformNodeID() != volume.GetTransformNodeID():
        raise ResultError(
            f"{node.GetName()} has another parent transform than {volume.GetName()}",
            "choose a new segmentation, or give both the same parent transform",
        )
    for segmentId in filled:
        Labelmaps.readVoxels(segmentation, segmentId, Box((0, 0, 0, 0, 0, 0)), toRas=toRas)
    if filled and referenceOf(node) not in (None, volume):
        raise ResultError(
            f"{node.GetName()} is the segmentation of {referenceOf(node).GetName()}, not of "
            f"{volume.GetName()}",
            "choose Create new segmentation",
        )
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.SetNodeReferenceID(REFERENCE_ROLE, volume.GetID())


def putBeside(node: Any, volume: Any) -> None:
    """Put a node where the volume is in the subject hierarchy: under its study."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    place, item = hierarchy.GetItemByDataNode(volume), hierarchy.GetItemByDataNode(node)
    if not place:
        return
    if item:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(place))
    else:  # without Qt nothing has made one
        hierarchy.CreateItem(hierarchy.GetItemParent(place), node)


def checkMasks(masks: NDArray[np.uint8], extraction: Extraction, classes: int) -> None:
    """Refuse masks of other pictures than were asked for.

    Raises:
        ResultError: the shape is another than `(N, K, H, W)` of the extraction and the task.
    """
    expected = (extraction.count, classes, *extraction.array.shape[1:3])
    if masks.shape != expected:
        raise ResultError(
            f"masks of shape {masks.shape}; expected {expected}",
            "segment again; if that does not help, copy the log and repair the environment",
        )


def masksOf(
    node: Any, volume: Any, ids: list[str], *, transform: bool = True, clip: Clip | None = None
) -> NDArray[np.uint8]:
    """Return the masks `(N, K, H, W)` of a volume's slices, along its third axis, as they are.

    Segments that were edited on a finer grid are brought to the volume's.

    Args:
        node: the segmentation.
        volume: its image.
        ids: the segments.
        transform: whether both must have the same parent transform; frames of a clip are none of
            the scene's and have none.
        clip: of which file the volume is a frame; the masks then have that file's size.

    Raises:
        ResultError: its transform is another.
    """
    if transform and node.GetTransformNodeID() != volume.GetTransformNodeID():
        raise ResultError(
            f"{node.GetName()} has another parent transform than {volume.GetName()}",
            "give both the same parent transform",
        )
    grid = Grid.of(volume, clip)
    box, toRas = grid.box, grid.toRas
    k, rows, columns = grid.size
    masks = np.empty((k, len(ids), rows, columns), np.uint8)
    for index, segmentId in enumerate(ids):
        try:
            values = Labelmaps.readVoxels(node.GetSegmentation(), segmentId, box, toRas=toRas)
        except ResultError:
            values = slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentId, volume) > 0
            if clip is not None:
                values = clip.enlarged(values)
        masks[:, index] = values
    return masks
