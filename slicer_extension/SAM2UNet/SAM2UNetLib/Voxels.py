"""Sets of voxels of a volume, and how masks of pictures cut from it are written back to them.

A mask is written to exactly the voxels its picture came from; all others stay as they are.
Indices are (i, j, k) as in MRML; arrays are (k, j, i). An extent is (i0, i1, j0, j1, k0, k1), both
ends in it, as in VTK.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Extent = tuple[int, int, int, int, int, int]
EMPTY: Extent = (0, -1, 0, -1, 0, -1)


@dataclass(frozen=True)
class Box:
    """All voxels of a box; values are `(k, j, i)` arrays of its size."""

    extent: Extent

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values."""
        return sizeOf(self.extent)

    def bounds(self, values: NDArray[np.bool_]) -> Extent:
        """Return the least extent that holds every true value; EMPTY where none is."""
        found = []
        for axis in (2, 1, 0):
            others = tuple(a for a in range(3) if a != axis)
            hits = np.flatnonzero(values.any(axis=others))
            if not len(hits):
                return EMPTY
            start = self.extent[2 * (2 - axis)]
            found += [start + int(hits[0]), start + int(hits[-1])]
        return tuple(found)

    def put(
        self, values: NDArray[np.bool_], target: NDArray[np.generic], extent: Extent, *, label: int
    ) -> None:
        """Write `label` where values are true, else 0, into an array of that extent, clipped."""
        there, here = _overlap(extent, self.extent), _overlap(self.extent, extent)
        np.multiply(values[here], target.dtype.type(label), out=target[there], casting="unsafe")

    def take(self, source: NDArray[np.generic], extent: Extent, *, label: int) -> NDArray[np.bool_]:
        """Return where an array of that extent holds `label`; false outside it."""
        values = np.zeros(self.shape, bool)
        values[_overlap(self.extent, extent)] = source[_overlap(extent, self.extent)] == label
        return values

    def copy(
        self, source: NDArray[np.generic], target: NDArray[np.uint8], extent: Extent, *, label: int
    ) -> None:
        """Write 1 where `source`, of this box, holds `label`, else 0, into an array as `put`."""
        there, here = _overlap(extent, self.extent), _overlap(self.extent, extent)
        np.equal(source[here], label, out=target.view(bool)[there])


@dataclass(frozen=True)
class Points:
    """Single voxels; values are `(M,)` arrays.

    Attributes:
        indices: `(M, 3)` int32, as (i, j, k); each voxel once.
    """

    indices: NDArray[np.int32]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values."""
        return (len(self.indices),)

    def bounds(self, values: NDArray[np.bool_]) -> Extent:
        """Return the least extent that holds every true value; EMPTY where none is."""
        if values.all():
            return self._extent
        return _extentOf(self._columns[:, np.flatnonzero(values)])

    def put(
        self, values: NDArray[np.bool_], target: NDArray[np.generic], extent: Extent, *, label: int
    ) -> None:
        """Write `label` where values are true, else 0, into an array of that extent, clipped."""
        inside, at = self._within(extent)
        np.put(target, at, values[inside] * target.dtype.type(label))

    def take(self, source: NDArray[np.generic], extent: Extent, *, label: int) -> NDArray[np.bool_]:
        """Return where an array of that extent holds `label`; false outside it."""
        values = np.zeros(self.shape, bool)
        inside, at = self._within(extent)
        values[inside] = source.take(at) == label
        return values

    @cached_property
    def _columns(self) -> NDArray[np.int32]:
        return np.ascontiguousarray(self.indices.T)

    @cached_property
    def _extent(self) -> Extent:
        return _extentOf(self._columns)

    @cached_property
    def _known(self) -> dict[Extent, tuple[NDArray[np.bool_] | slice, NDArray[np.intp]]]:
        return {}  # of the last extent: the classes of a task share it

    def _within(self, extent: Extent) -> tuple[NDArray[np.bool_] | slice, NDArray[np.intp]]:
        """Return which points lie in an extent, and their places in its array, counted flat."""
        if extent not in self._known:
            inside: NDArray[np.bool_] | slice = slice(None)
            columns = self._columns
            if union(extent, self._extent) != tuple(extent):
                inside = np.ones(self.shape, bool)
                for axis, column in enumerate(columns):
                    inside &= (column >= extent[2 * axis]) & (column <= extent[2 * axis + 1])
                columns = columns[:, inside]
            _, rows, width = sizeOf(extent)
            at = np.multiply(columns[2], rows * width, dtype=np.intp)
            at += columns[1] * np.int32(width)
            at += columns[0]
            at -= extent[0] + width * (extent[2] + rows * extent[4])
            self._known.clear()
            self._known[extent] = (inside, at)
        return self._known[extent]


@dataclass(frozen=True)
class Planes:
    """Pictures that are planes of voxels, in whatever order and sense of the axes.

    Attributes:
        extent: the voxels that were cut, all pictures together.
        order: for picture, row and column, which axis of the `(k, j, i)` array it follows.
        flipped: for each of the three, whether it runs against the index.
    """

    extent: Extent
    order: tuple[int, int, int] = (0, 1, 2)
    flipped: tuple[bool, bool, bool] = (False, False, False)

    @property
    def count(self) -> int:
        """How many pictures there are."""
        return sizeOf(self.extent)[self.order[0]]

    def cut(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the pictures `(N, H, W, ...)` of a `(k, j, i, ...)` volume, as a copy."""
        whole = (0, volume.shape[2] - 1, 0, volume.shape[1] - 1, 0, volume.shape[0] - 1)
        box = volume[_overlap(whole, self.extent)]
        turned = np.transpose(box, (*self.order, *range(3, volume.ndim)))
        turned = np.flip(turned, [axis for axis in range(3) if self.flipped[axis]])
        return np.ascontiguousarray(turned)

    def voxels(self, index: int | None = None) -> Box:
        """Return the voxels of one picture, or of all."""
        if index is None:
            return Box(self.extent)
        if self.flipped[0]:
            index = self.count - 1 - index
        extent, axis = list(self.extent), 2 - self.order[0]
        extent[2 * axis] = extent[2 * axis + 1] = self.extent[2 * axis] + index
        return Box(tuple(extent))

    def back(self, pictures: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return pictures `(N, H, W)` as values of `voxels()`; one picture as one of its own."""
        box = np.flip(pictures, [axis for axis in range(3) if self.flipped[axis]])
        return np.transpose(box, np.argsort(self.order).tolist())


@dataclass(frozen=True)
class Oblique:
    """A picture cut through the volume at an angle.

    For each column of voxels along the axis that the plane crosses most steeply, the one voxel
    nearest to the plane belongs to the picture and takes the nearest pixel's value.

    Attributes:
        shape: (rows, columns) of the picture.
        voxelIndices: `(M, 3)` int32 (i, j, k) of the voxels of the plane.
        pixelIndices: `(M,)` for each of them its pixel, counted row by row.
    """

    shape: tuple[int, int]
    voxelIndices: NDArray[np.int32]
    pixelIndices: NDArray[np.intp]

    count = 1

    @cached_property
    def _points(self) -> Points:
        return Points(self.voxelIndices)

    def voxels(self, index: int | None = None) -> Points:
        """Return the voxels of the picture."""
        return self._points

    def back(self, pictures: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the picture `(1, H, W)` as values of `voxels()`."""
        return pictures.reshape(-1)[self.pixelIndices]


Place = Planes | Oblique


def sizeOf(extent: Extent) -> tuple[int, int, int]:
    """Return the `(k, j, i)` shape of an extent."""
    i0, i1, j0, j1, k0, k1 = extent
    return (max(0, k1 - k0 + 1), max(0, j1 - j0 + 1), max(0, i1 - i0 + 1))


def union(first: Extent, second: Extent) -> Extent:
    """Return the least extent that holds both; one that is empty does not count."""
    if 0 in sizeOf(first):
        return second
    if 0 in sizeOf(second):
        return first
    ends = zip(first, second, strict=True)
    return tuple(min(pair) if n % 2 == 0 else max(pair) for n, pair in enumerate(ends))


def _extentOf(columns: NDArray[np.int32]) -> Extent:
    """Return the least extent that holds points given as `(3, M)`."""
    if not columns.size:
        return EMPTY
    ends = [(int(column.min()), int(column.max())) for column in columns]
    return (*ends[0], *ends[1], *ends[2])


def _overlap(extent: Extent, other: Extent) -> tuple[slice, slice, slice]:
    """Return the part of an array of `extent` that lies in `other`, as `(k, j, i)` slices."""
    parts = []
    for axis in (2, 1, 0):
        start, end = extent[2 * axis], extent[2 * axis + 1]
        low, high = max(start, other[2 * axis]), min(end, other[2 * axis + 1])
        parts.append(slice(low - start, max(low, high + 1) - start))
    return tuple(parts)
