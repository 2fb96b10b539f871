"""How the values of a volume become greys: a window, the range a file states, or its voxels'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.errors import InputError, Reason
from sam2unet_core.task import Window
from sam2unet_core.types import Caution

if TYPE_CHECKING:
    from sam2unet_core.dicom.grey import GreyWindow

_ONE_IN = 1000
"""Voxels that are set aside as outliers: one in so many at either end, as in `dicom.grey`."""
_FEWEST = 64
"""Volumes of fewer voxels have no outliers."""
_LEFT_OVER = 0.1
"""They are outliers where the others fill less than this share of the range."""
_SAMPLE = 2**22
"""Voxels that are looked at, evenly spread, to find out."""


def display_range(
    values: NDArray[Any], *, stated: tuple[float, float] | None, window: Window | None
) -> tuple[GreyWindow | None, tuple[Caution, ...]]:
    """Return what maps the voxels to greys, and what was guessed; None where they are 8-bit greys.

    Without a window and a stated range, greys span the finite voxels from the lowest to the
    highest. Where a few outliers, one in a thousand at either end, take up nine tenths of that
    range, they are set aside.

    Args:
        values: all voxels, of one channel.
        stated: the (lowest, highest) value to show that the file states, or None.
        window: the task's.

    Raises:
        InputError: no voxel is a number.
    """
    if values.dtype.kind == "c":
        raise InputError("complex voxels have no grey; save their magnitude", reason=Reason.CORRUPT)
    if window is None and values.dtype == np.uint8:
        return None, ()
    from sam2unet_core.dicom.grey import GreyWindow  # noqa: PLC0415 - imports pydicom

    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        raise InputError("no voxel is a number: all are NaN or infinite", reason=Reason.CORRUPT)
    if window is not None:
        return GreyWindow(window.center, window.width), ()
    low, high, cautions = _range(finite) if stated is None else (*stated, ())
    return GreyWindow((low + high) / 2, max(high - low, 1e-12), "LINEAR_EXACT"), cautions


def to_pixels(
    plane: NDArray[Any], shown: GreyWindow | None
) -> tuple[NDArray[np.uint8], tuple[Caution, ...]]:
    """Return a slice as `(H, W, 3)` uint8, and a caution where it holds what is no number.

    Args:
        plane: `(H, W)` greys or `(H, W, 3)` colours.
        shown: maps greys to 8 bits; None where they are.
    """
    if plane.ndim == 3:
        return np.ascontiguousarray(plane.astype(np.uint8)), ()
    cautions: tuple[Caution, ...] = ()
    if shown is None:
        grey = plane.astype(np.uint8)
    elif plane.dtype.kind != "f":
        grey = shown(plane)
    else:
        bad = ~np.isfinite(plane)
        grey = shown(np.where(bad, 0, plane))
        grey[bad] = 0
        cautions = _not_finite(bad)
    return np.repeat(grey[:, :, None], 3, axis=2), cautions


def _range(finite: NDArray[Any]) -> tuple[float, float, tuple[Caution, ...]]:
    low, high = float(finite.min()), float(finite.max())
    flat = finite.reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLE)]
    if sample.size < _FEWEST or not high > low:
        return low, high, ()
    aside = max(1, round((sample.size - 1) / _ONE_IN))
    ordered = np.partition(sample, [aside, sample.size - 1 - aside])
    inner_low, inner_high = float(ordered[aside]), float(ordered[-1 - aside])
    span = inner_high - inner_low
    if span <= 0 or span >= _LEFT_OVER * (high - low):  # where all others are alike: they matter
        return low, high, ()
    message = (
        f"a few voxels (about one in {_ONE_IN} at most) stretch the range to {low:g} to {high:g}: "
        f"shown from {inner_low:g} to {inner_high:g}, between which the others lie"
    )
    return inner_low, inner_high, (Caution("window_guessed", message),)


def _not_finite(bad: NDArray[np.bool_]) -> tuple[Caution, ...]:
    if not bad.any():
        return ()
    every = "every voxel is" if bad.all() else "voxels are"
    message = f"{every} no number (NaN or infinite): shown as the lowest value"
    return (Caution("not_finite", message),)
