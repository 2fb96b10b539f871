"""Positions of frames in the patient: LPS coordinates in mm, one position per frame.

A stack that no affine describes keeps its positions and reports why. Conventions are those of DICOM
PS3.3 C.7.6.2.1.1: x to the patient's left, y to the back, z to the head; positions are pixel
centres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.errors import GeometryError

Vector = NDArray[np.float64]

_MIN_TOLERANCE_MM = 0.02
"""Positions are often stored with two decimals only."""
_RELATIVE_TOLERANCE = 0.02
"""Deviation from an even grid that rounding explains, as a fraction of the frame spacing."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Position and orientation of frames in space.

    Attributes:
        positions: `(N, 3)` float64, LPS in mm, centre of the first pixel of each frame.
        row_cosine: `(3,)` unit vector along a row, in the direction of increasing column index.
        column_cosine: `(3,)` unit vector along a column, in the direction of increasing row index.
        spacing_mm: (row, column) pixel pitch: between rows, between columns.
        thickness_mm: slice thickness, or None; used only as the step of a single frame.
        frame_of_reference_uid: the DICOM frame of reference, or None.

    Raises:
        GeometryError: the shapes are wrong, the cosines are not orthogonal unit vectors, or a
            spacing is not positive.
    """

    positions: Vector
    row_cosine: Vector
    column_cosine: Vector
    spacing_mm: tuple[float, float]
    thickness_mm: float | None = None
    frame_of_reference_uid: str | None = None

    def __post_init__(self) -> None:
        """Convert to arrays and check them."""
        for name in ("positions", "row_cosine", "column_cosine"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        _check(self)

    @property
    def normal(self) -> Vector:
        """`(3,)` unit normal of the frames: row cosine x column cosine."""
        normal: Vector = np.cross(self.row_cosine, self.column_cosine).astype(np.float64)
        return normal

    @property
    def offsets_mm(self) -> Vector:
        """`(N,)` positions of the frames along the normal, in mm."""
        return self.positions @ self.normal

    @cached_property
    def tilted(self) -> bool:
        """Whether the frames are shifted in their own plane, as by a tilted gantry."""
        offsets = self.offsets_mm[:, None] * self.normal
        in_plane = self.positions - offsets
        shift = np.linalg.norm(in_plane - in_plane[:1], axis=1)
        return bool(shift.max() > self._tolerance)

    @cached_property
    def repeated(self) -> bool:
        """Whether several frames lie at one position, as in a time series."""
        return bool(np.any(np.diff(np.sort(self.offsets_mm)) <= self._tolerance / 2))

    @cached_property
    def missing_slices(self) -> int:
        """Number of slices missing from an otherwise even stack; 0 if it is not even."""
        steps = np.diff(self.offsets_mm) * self._direction
        if len(steps) < 2 or self.repeated or np.any(steps <= 0):
            return 0
        whole = np.rint(steps / steps.min())
        close = np.abs(steps - whole * steps.min()) <= self._tolerance
        return int((whole - 1).sum()) if close.all() else 0

    @cached_property
    def uneven(self) -> bool:
        """Whether the distances between frames differ, missing slices included."""
        if len(self.positions) < 2:
            return False
        offsets = self.offsets_mm
        even = np.linspace(offsets[0], offsets[-1], len(offsets))
        turning = bool(np.any(np.diff(offsets) * self._direction <= 0))
        return turning or bool(np.abs(offsets - even).max() > self._tolerance)

    @property
    def regular(self) -> bool:
        """Whether the frames form a rectangular grid, evenly spaced and without tilt."""
        return not (self.tilted or self.uneven)

    @cached_property
    def problems(self) -> tuple[str, ...]:
        """Why the frames are not regular, in words; empty if they are."""
        found = []
        if self.tilted:
            found.append(f"tilted by {self.tilt_degrees:.1f} degrees")
        if self.repeated:
            found.append("several frames at one position (a time series, or duplicates)")
        elif self.missing_slices:
            count = self.missing_slices
            found.append(f"{count} slice{'s' if count > 1 else ''} missing")
        elif self.uneven:
            steps = np.diff(self.offsets_mm) * self._direction
            found.append(f"uneven spacing ({steps.min():.3g} to {steps.max():.3g} mm)")
        return tuple(found)

    @cached_property
    def spatial_order(self) -> tuple[int, ...]:
        """Frame indices in the order of a volume.

        The stored order, unless only sorting along the normal gives a regular grid, as for frames
        stored by acquisition time.
        """
        stored = tuple(range(len(self.positions)))
        if self.regular:
            return stored
        along = tuple(int(index) for index in np.argsort(self.offsets_mm, kind="stable"))
        return along if replace(self, positions=self.positions[list(along)]).regular else stored

    def in_spatial_order(self) -> Geometry:
        """Return the frames in the order of `spatial_order`."""
        return replace(self, positions=self.positions[list(self.spatial_order)])

    @property
    def tilt_degrees(self) -> float:
        """Angle between the normal and the line from first to last frame; 0 for one frame."""
        path = self.positions[-1] - self.positions[0]
        length = float(np.linalg.norm(path))
        if length == 0:
            return 0.0
        along = min(1.0, abs(float(path @ self.normal)) / length)
        return float(np.degrees(np.arccos(along)))

    def affine(self, *, shear: bool = False) -> Vector:
        """Return the `(4, 4)` matrix from index (column, row, frame) to LPS in mm.

        Args:
            shear: also describe a tilted stack, by a sheared matrix.

        Raises:
            GeometryError: the frames are unevenly spaced, or tilted and `shear` is not set.
        """
        if self.uneven or (self.tilted and not (shear and self._collinear)):
            raise GeometryError(
                f"no affine describes these frames: {'; '.join(self.problems)}; write DICOM SEG, "
                "which keeps each frame's own position"
            )
        matrix = np.eye(4)
        matrix[:3, 0] = self.row_cosine * self.spacing_mm[1]
        matrix[:3, 1] = self.column_cosine * self.spacing_mm[0]
        matrix[:3, 2] = self._frame_step()
        matrix[:3, 3] = self.positions[0]
        return matrix

    @property
    def _direction(self) -> float:
        """1 if the frames are ordered along the normal, -1 if against it."""
        offsets = self.offsets_mm
        return 1.0 if offsets[-1] >= offsets[0] else -1.0

    @property
    def _collinear(self) -> bool:
        """Whether the positions lie evenly spaced on a line."""
        share = np.linspace(0, 1, len(self.positions))[:, None]
        even = self.positions[0] + share * (self.positions[-1] - self.positions[0])
        return bool(np.linalg.norm(self.positions - even, axis=1).max() <= self._tolerance)

    def _frame_step(self) -> Vector:
        if len(self.positions) == 1:
            return self.normal * (self.thickness_mm or 1.0)
        step: Vector = (self.positions[-1] - self.positions[0]) / (len(self.positions) - 1)
        return step

    @cached_property
    def _step(self) -> float:
        """Median distance between neighbours along the normal; 0 for a single frame."""
        steps = np.diff(np.sort(self.offsets_mm))
        steps = steps[steps > _MIN_TOLERANCE_MM / 2]
        return float(np.median(steps)) if len(steps) else 0.0

    @property
    def _tolerance(self) -> float:
        return max(_MIN_TOLERANCE_MM, _RELATIVE_TOLERANCE * self._step)


def _check(geometry: Geometry) -> None:
    positions, row, column = geometry.positions, geometry.row_cosine, geometry.column_cosine
    if positions.ndim != 2 or positions.shape[1:] != (3,) or not len(positions):
        raise GeometryError(f"positions of shape {positions.shape}; expected (N, 3) with N >= 1")
    if row.shape != (3,) or column.shape != (3,):
        raise GeometryError(f"cosines of shapes {row.shape} and {column.shape}; expected (3,)")
    finite = np.isfinite(positions).all() and np.isfinite(row).all() and np.isfinite(column).all()
    lengths = (float(np.linalg.norm(row)), float(np.linalg.norm(column)))
    if not finite or abs(float(row @ column)) > 1e-3 or any(abs(v - 1) > 1e-3 for v in lengths):
        raise GeometryError(
            f"row cosine {row.tolist()} and column cosine {column.tolist()} are not orthogonal "
            "unit vectors"
        )
    if not all(np.isfinite(v) and v > 0 for v in geometry.spacing_mm):
        raise GeometryError(f"pixel spacing of {geometry.spacing_mm} mm; expected above 0")
