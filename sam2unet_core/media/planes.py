"""Reslice a volume to another plane, and map results back to its own frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.errors import GeometryError, InputError, Reason
from sam2unet_core.geometry import Geometry
from sam2unet_core.task import Window
from sam2unet_core.types import Caution, Frame, Indices, OnError, Series

if TYPE_CHECKING:
    from pydicom import Dataset

Plane = Literal["axial", "coronal", "sagittal"]
_DISPLAY_AXES: dict[str, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    "axial": ((2, 1), (1, 1), (0, 1)),
    "coronal": ((1, 1), (2, -1), (0, 1)),
    "sagittal": ((0, 1), (2, -1), (1, 1)),
}
"""Patient axis (L, P, S) and direction of frames, rows and columns in radiological display: head or
front up, the patient's left or back on the right."""


def reslice(series: Series, plane: Plane) -> Series:
    """Return the volume as frames in `plane`; the series itself if it has that orientation.

    The nearest axes of the volume are used, without interpolation. Its voxels are held in memory
    while the frames are read.

    Raises:
        InputError: the frames do not form a rectangular grid.
    """
    if series.geometry is None:
        raise InputError(
            "frames without a position in space cannot be resliced",
            reason=Reason.INCONSISTENT_GEOMETRY,
        )
    reorientation = _Reorientation.to(plane, series.geometry)
    if reorientation.order == (0, 1, 2) and not any(reorientation.flipped):
        return series
    try:
        affine = series.geometry.affine()
    except GeometryError as error:
        raise InputError(
            f"no {plane} planes: {error}", reason=Reason.INCONSISTENT_GEOMETRY
        ) from error
    shape = (series.frame_count, series.rows, series.columns)
    frames, rows, columns = (shape[axis] for axis in reorientation.order)
    geometry = reorientation.geometry(affine, shape, series.geometry)
    return replace(
        series,
        source=PlaneSource(series, reorientation),
        rows=rows,
        columns=columns,
        frame_count=frames,
        geometry=geometry,
        spacing_mm=geometry.spacing_mm,
    )


def source_series(series: Series) -> Series:
    """Return the series that was resliced; the series itself if it was not."""
    return series.source.base if isinstance(series.source, PlaneSource) else series


def stored_frame(series: Series, index: int) -> Frame:
    """Return a frame of a series by index, without its pixels, for references in outputs."""
    one_each = len(series.instances) == series.frame_count
    instance, number = (index, 1) if one_each else (0, index + 1)
    return Frame(np.zeros((1, 1, 3), np.uint8), index, instance, number)


def to_source(series: Series, volume: NDArray[Any]) -> NDArray[Any]:
    """Map `(N, H, W)` or `(N, H, W, ...)` values to the frames of `source_series(series)`."""
    source = series.source
    return source.reorientation.undo(volume) if isinstance(source, PlaneSource) else volume


class PlaneSource:
    """Reslices the volume of a base series, whose axes are mapped to those of the frames."""

    def __init__(self, base: Series, reorientation: _Reorientation) -> None:
        self.base = base
        self.reorientation = reorientation

    def frames(
        self, series: Series, *, indices: Indices, window: Window | None, on_error: OnError | None
    ) -> Iterator[Frame]:
        """Yield frames, or none if a base frame cannot be read.

        `Frame.instance` is always 0, since a slice crosses all instances.
        """
        base = self.base
        volume = np.empty((base.frame_count, base.rows, base.columns, 3), np.uint8)
        failed: list[int] = []

        def report(instance: int, error: InputError) -> None:
            if on_error is None:
                raise error
            failed.append(instance)
            on_error(instance, error)

        cautions: dict[Caution, None] = {}
        for frame in base.frames(window=window, on_error=report):
            volume[frame.index] = frame.pixels
            cautions.update(dict.fromkeys(frame.cautions))
        if failed:
            return  # every frame of the other plane would be incomplete
        turned = self.reorientation.apply(volume)
        for index in range(len(turned)) if indices is None else indices:
            pixels = np.ascontiguousarray(turned[index])
            yield Frame(pixels, index, 0, index + 1, cautions=tuple(cautions))

    def dataset(self, series: Series, instance_index: int) -> Dataset | None:
        """Return the header of a base instance."""
        return self.base.dataset(instance_index)


@dataclass(frozen=True)
class _Reorientation:
    """Axes of a volume (frame, row, column), permuted and then flipped.

    Attributes:
        order: for each new axis, the old one.
        flipped: for each new axis, whether its direction is reversed.
    """

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    @classmethod
    def to(cls, plane: Plane, geometry: Geometry) -> _Reorientation:
        """Find the axes nearest to those of the plane."""
        frame = geometry.positions[-1] - geometry.positions[0]
        length = float(np.linalg.norm(frame))
        frame = frame / length if length else geometry.normal
        old = np.array([frame, geometry.column_cosine, geometry.row_cosine])
        wanted = _DISPLAY_AXES[plane]
        along = np.array([[old[axis][p] * sense for axis in range(3)] for p, sense in wanted])
        best = max(permutations(range(3)), key=lambda o: sum(abs(along[i, o[i]]) for i in range(3)))
        first, second, third = best
        return cls(
            (first, second, third),
            (bool(along[0, first] < 0), bool(along[1, second] < 0), bool(along[2, third] < 0)),
        )

    def apply(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Return `(frame, row, column, ...)` values in the new order."""
        rest = tuple(range(3, volume.ndim))
        turned = np.transpose(volume, (*self.order, *rest))
        return np.flip(turned, [i for i in range(3) if self.flipped[i]])

    def undo(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Return values in the old order; the inverse of `apply`."""
        rest = tuple(range(3, volume.ndim))
        back = np.flip(volume, [i for i in range(3) if self.flipped[i]])
        return np.transpose(back, (*np.argsort(self.order).tolist(), *rest))

    def geometry(
        self, affine: NDArray[np.float64], shape: tuple[int, int, int], base: Geometry
    ) -> Geometry:
        """Return the geometry of the new frames from the affine of (column, row, frame)."""
        axes = affine[:3, [2, 1, 0]]  # as frame, row, column
        origin, vectors = affine[:3, 3].copy(), []
        for new, old in enumerate(self.order):
            vector = axes[:, old]
            if self.flipped[new]:
                origin = origin + vector * (shape[old] - 1)
                vector = -vector
            vectors.append(vector)
        pitch = [float(np.linalg.norm(vector)) for vector in vectors]
        steps = np.arange(shape[self.order[0]])[:, None]
        return Geometry(
            positions=origin + steps * vectors[0],
            row_cosine=vectors[2] / pitch[2],
            column_cosine=vectors[1] / pitch[1],
            spacing_mm=(pitch[1], pitch[2]),
            thickness_mm=pitch[0],
            frame_of_reference_uid=base.frame_of_reference_uid,
        )
