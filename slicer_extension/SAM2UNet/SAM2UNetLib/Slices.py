"""Which voxels a slice view shows: whole planes of them, or a cut at an angle.

Positions are RAS in mm, as in MRML; indices are (i, j, k).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from .Errors import InputError
from .Voxels import Extent, Oblique, Planes

Matrix = NDArray[np.float64]

ALIGNED_VOXELS = 0.5
"""A view that leaves a plane of voxels by less than this, all over the volume, shows that plane."""


@dataclass(frozen=True)
class SliceView:
    """A slice view's plane, seen from a volume's voxels.

    Attributes:
        toIjk: `(4, 4)` from slice coordinates (right, up, to the viewer; mm) to voxel indices.
        size: (I, J, K) voxels of the volume.
    """

    toIjk: Matrix
    size: tuple[int, int, int]

    @classmethod
    def of(cls, sliceNode: object, volumeNode: object) -> SliceView:
        """Return the plane of a slice node.

        Raises:
            InputError: the volume has a parent transform that is not linear.
        """
        toWorld = ijkToWorld(volumeNode)
        toIjk = np.linalg.inv(toWorld) @ arrayOf(sliceNode.GetSliceToRAS())
        return cls(toIjk, tuple(volumeNode.GetImageData().GetDimensions()))

    @cached_property
    def covector(self) -> Matrix:
        """`(4,)` w with w . (i, j, k, 1) = distance from the plane in mm."""
        return np.linalg.inv(self.toIjk)[2]

    @cached_property
    def steepest(self) -> int:
        """The voxel axis (0 for i) that the plane crosses most steeply, in steps of voxels."""
        return int(np.argmax(np.abs(self.covector[:3])))

    def plane(self) -> int | None:
        """Return the index, along `steepest`, of the plane of voxels that is shown, if one is.

        Raises:
            InputError: the plane lies beside the volume.
        """
        axis = self.steepest
        low, high = self._depths()
        if high - low >= ALIGNED_VOXELS:
            return None
        index = int(np.floor((low + high) / 2 + 0.5))
        if not 0 <= index < self.size[axis]:
            raise InputError(
                "the slice view is outside the volume",
                "move the slice view into the volume, or choose another slice view",
            )
        return index

    def planes(self, first: int | None = None, last: int | None = None) -> Planes:
        """Return planes of voxels across `steepest`, oriented as the view shows them.

        Slices along the third axis, as they were acquired, keep the order in which they are
        stored, so that a slice gives what the whole volume gives. The others get rows and columns
        along the view's own: what is on top there is in the first row.

        Args:
            first: index of the first plane; 0 by default.
            last: index of the last one; the volume's last by default.
        """
        axis = self.steepest
        ends = [0, self.size[0] - 1, 0, self.size[1] - 1, 0, self.size[2] - 1]
        ends[2 * axis] = 0 if first is None else first
        ends[2 * axis + 1] = self.size[axis] - 1 if last is None else last
        extent: Extent = tuple(ends)
        if axis == 2:
            return Planes(extent)
        down, right = -self.toIjk[:3, 1], self.toIjk[:3, 0]
        left = [a for a in range(3) if a != axis]
        row, column = max(
            permutations(left), key=lambda pair: abs(down[pair[0]]) + abs(right[pair[1]])
        )
        order = (2 - axis, 2 - row, 2 - column)
        return Planes(extent, order, (False, bool(down[row] < 0), bool(right[column] < 0)))

    def cut(self, image: vtk.vtkImageData) -> tuple[NDArray[np.generic], Oblique]:
        """Return the oblique picture and the voxels it belongs to.

        Pixels are squares of the volume's least spacing along the view's axes, values are linear
        between voxels, 0 outside the volume; the picture is cropped to where the plane lies in it.

        Args:
            image: the volume's voxels, in index coordinates.

        Raises:
            InputError: the plane lies beside the volume.
        """
        depth, met = self._crossed()
        toSlice = np.linalg.inv(self.toIjk)
        right, up = (self._onPlane(row, depth)[met] for row in toSlice[:2])
        pitch = float(np.linalg.norm(toSlice[:3, :3], axis=0).min())
        left, top = float(right.min()), float(up.max())
        columns = _rounded(right - left, pitch)
        rows = _rounded(top - up, pitch)
        shape = (int(rows.max()) + 1, int(columns.max()) + 1)
        axes = self.toIjk.copy()
        axes[:, 0] = self.toIjk[:, 0] * pitch
        axes[:, 1] = -self.toIjk[:, 1] * pitch
        axes[:, 3] = self.toIjk @ np.array([left, top, 0, 1])
        picture = _resliced(image, axes, shape)
        rows *= shape[1]
        rows += columns
        return picture, Oblique(shape, self._indices(depth, met), rows.astype(np.intp))

    def _depths(self) -> tuple[float, float]:
        """Return the least and greatest index along `steepest` that the plane reaches."""
        axis, w = self.steepest, self.covector
        others = [a for a in range(3) if a != axis]
        corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) * [self.size[a] - 1 for a in others]
        depths = -(corners @ w[others] + w[3]) / w[axis]
        return float(depths.min()), float(depths.max())

    @property
    def _others(self) -> tuple[int, int]:
        first, second = (a for a in range(3) if a != self.steepest)
        return first, second

    def _crossed(self) -> tuple[Matrix, NDArray[np.intp] | slice]:
        """Return, for each column of voxels along `steepest`, where the plane meets it.

        Returns:
            A grid of indices along `steepest`, over the other two axes, and which of them, counted
            flat, lie in the volume.
        """
        axis, w = self.steepest, self.covector
        first, second = self._others
        slopes = -w / w[axis]
        along = slopes[first] * np.arange(self.size[first]) + slopes[3] + 0.5
        across = slopes[second] * np.arange(self.size[second])
        depth = along[:, None] + across
        np.floor(depth, out=depth)
        inside = (depth >= 0) & (depth < self.size[axis])
        if inside.all():
            return depth, slice(None)
        met = np.flatnonzero(inside)
        if not len(met):
            raise InputError(
                "the slice view is outside the volume",
                "move the slice view into the volume, or choose another slice view",
            )
        return depth, met

    def _onPlane(self, row: Matrix, depth: Matrix) -> Matrix:
        """Return, flat, `row . (i, j, k, 1)` of the voxels of a grid of `_crossed`."""
        first, second = self._others
        values = row[self.steepest] * depth
        values += (row[first] * np.arange(self.size[first]))[:, None]
        values += row[second] * np.arange(self.size[second]) + row[3]
        return values.reshape(-1)

    def _indices(self, depth: Matrix, met: NDArray[np.intp] | slice) -> NDArray[np.int32]:
        """Return `(M, 3)` (i, j, k) of the voxels of a grid of `_crossed`."""
        first, second = self._others
        found = np.empty((3, depth.size), np.int32)
        found[first].reshape(depth.shape)[:] = np.arange(self.size[first])[:, None]
        found[second].reshape(depth.shape)[:] = np.arange(self.size[second])
        found[self.steepest] = depth.reshape(-1)
        return found[:, met].T


def ijkToWorld(volumeNode: object) -> Matrix:
    """Return the `(4, 4)` matrix from voxel indices to RAS in mm, parent transforms included.

    Raises:
        InputError: a parent transform is not linear.
    """
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    toParent = arrayOf(matrix)
    transform = volumeNode.GetParentTransformNode()
    if transform is None:
        return toParent
    if not transform.IsTransformToWorldLinear():
        raise InputError(
            f"{volumeNode.GetName()} has a parent transform that is not linear, "
            "so a slice view does not show planes of its voxels",
            "segment the whole volume, or remove the transform",
        )
    transform.GetMatrixTransformToWorld(matrix)
    return arrayOf(matrix) @ toParent


def arrayOf(matrix: vtk.vtkMatrix4x4) -> Matrix:
    """Return a VTK matrix as an array."""
    return np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])


def matrixOf(array: Matrix) -> vtk.vtkMatrix4x4:
    """Return an array as a VTK matrix."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, float).ravel().tolist())
    return matrix


def _rounded(lengths: Matrix, pitch: float) -> Matrix:
    """Return lengths in whole pitches, halves upwards; `lengths` is used up."""
    lengths /= pitch
    lengths += 0.5
    return np.floor(lengths, out=lengths)


def _resliced(image: vtk.vtkImageData, axes: Matrix, shape: tuple[int, int]) -> NDArray[np.generic]:
    """Return `(H, W)` or `(H, W, C)` values, linear between voxels, 0 outside.

    Args:
        image: in index coordinates.
        axes: `(4, 4)` columns: step of a column, of a row, anything, first pixel; in indices.
        shape: (rows, columns).
    """
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(image)
    reslice.SetResliceAxes(matrixOf(axes))
    reslice.SetOutputDimensionality(2)
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputExtent(0, shape[1] - 1, 0, shape[0] - 1, 0, 0)
    reslice.SetInterpolationModeToLinear()
    reslice.BorderOn()
    reslice.Update()
    values = numpy_support.vtk_to_numpy(reslice.GetOutput().GetPointData().GetScalars())
    return values.reshape(*shape, *values.shape[1:]).copy()
