"""Look at a volume in another plane, and bring what was found back to its own frames."""

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
_WAYS: dict[str, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    "axial": ((2, 1), (1, 1), (0, 1)),
    "coronal": ((1, 1), (2, -1), (0, 1)),
    "sagittal": ((0, 1), (2, -1), (1, 1)),
}
"""For frames, rows and columns: the patient's axis (L, P, S) they follow and in which sense, as
pictures are hung: head or front up, the patient's left or back on the right."""


def reslice(series: Series, plane: Plane) -> Series:
    """Return the volume as frames in `plane`; the series itself where it lies that way already.

    Args:
        series: a volume; its voxels are held in memory while the frames are read.
        plane: which patient plane; the volume's own axes nearest to it are taken, nothing is
            interpolated.

    Raises:
        InputError: no upright grid describes the frames, so no other plane can be cut from them.
    """
    if series.geometry is None:
        raise InputError(
            "frames without a place in space cannot be cut in another plane",
            reason=Reason.INCONSISTENT_GEOMETRY,
        )
    turn = _Turn.to(plane, series.geometry)
    if turn.order == (0, 1, 2) and not any(turn.flipped):
        return series
    try:
        affine = series.geometry.affine()
    except GeometryError as error:
        raise InputError(
            f"no {plane} planes: {error}", reason=Reason.INCONSISTENT_GEOMETRY
        ) from error
    shape = (series.frame_count, series.rows, series.columns)
    frames, rows, columns = (shape[axis] for axis in turn.order)
    geometry = turn.geometry(affine, shape, series.geometry)
    return replace(
        series,
        source=PlaneSource(series, turn),
        rows=rows,
        columns=columns,
        frame_count=frames,
        geometry=geometry,
        spacing_mm=geometry.spacing_mm,
    )


def source_series(series: Series) -> Series:
    """Return the series that frames were cut from; the series itself where they were not."""
    return series.source.base if isinstance(series.source, PlaneSource) else series


def stored_frame(series: Series, index: int) -> Frame:
    """Return a frame of a series by its place, without its pixels: what writers refer to."""
    one_each = len(series.instances) == series.frame_count
    instance, number = (index, 1) if one_each else (0, index + 1)
    return Frame(np.zeros((1, 1, 3), np.uint8), index, instance, number)


def to_source(series: Series, volume: NDArray[Any]) -> NDArray[Any]:
    """Bring `(N, H, W)` values, or `(N, H, W, ...)`, to the frames of `source_series(series)`."""
    return series.source.turn.undo(volume) if isinstance(series.source, PlaneSource) else volume


class PlaneSource:
    """Cuts frames from the volume that the base series' frames make up.

    Args:
        base: the series as it is stored.
        turn: how its axes become those of the frames.
    """

    def __init__(self, base: Series, turn: _Turn) -> None:
        self.base = base
        self.turn = turn

    def frames(
        self, series: Series, *, indices: Indices, window: Window | None, on_error: OnError | None
    ) -> Iterator[Frame]:
        """Yield frames; a base frame that cannot be read ends the series.

        `Frame.instance` is 0 throughout: a cut goes through all instances.
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
            return  # a hole in the volume: no frame of another plane is whole
        turned = self.turn.apply(volume)
        for index in range(len(turned)) if indices is None else indices:
            pixels = np.ascontiguousarray(turned[index])  # each cut goes through all base frames
            yield Frame(pixels, index, 0, index + 1, cautions=tuple(cautions))

    def dataset(self, series: Series, instance_index: int) -> Dataset | None:
        """Return the header of a base instance."""
        return self.base.dataset(instance_index)


@dataclass(frozen=True)
class _Turn:
    """Axes of a volume (frame, row, column), reordered and then flipped.

    Attributes:
        order: for each new axis, the old one.
        flipped: for each new axis, whether it runs the other way.
    """

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    @classmethod
    def to(cls, plane: Plane, geometry: Geometry) -> _Turn:
        """Find the old axes that are nearest to the plane's."""
        frame = geometry.positions[-1] - geometry.positions[0]
        length = float(np.linalg.norm(frame))
        frame = frame / length if length else geometry.normal
        old = np.array([frame, geometry.column_cosine, geometry.row_cosine])
        ways = _WAYS[plane]
        along = np.array([[old[axis][p] * sense for axis in range(3)] for p, sense in ways])
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
        origin, ways = affine[:3, 3].copy(), []
        for new, old in enumerate(self.order):
            way = axes[:, old]
            if self.flipped[new]:
                origin = origin + way * (shape[old] - 1)
                way = -way
            ways.append(way)
        pitch = [float(np.linalg.norm(way)) for way in ways]
        steps = np.arange(shape[self.order[0]])[:, None]
        return Geometry(
            positions=origin + steps * ways[0],
            row_cosine=ways[2] / pitch[2],
            column_cosine=ways[1] / pitch[1],
            spacing_mm=(pitch[1], pitch[2]),
            thickness_mm=pitch[0],
            frame_of_reference_uid=base.frame_of_reference_uid,
        )
