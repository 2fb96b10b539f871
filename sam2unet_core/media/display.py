"""Grey range of a volume: a window, the range that the file states, or that of its voxels."""

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
"""At most one in this many voxels is an outlier at either end, as in `dicom.grey`."""
_MIN_VOXELS = 64
"""Smaller volumes have no outliers."""
_MIN_SHARE = 0.1
"""Outliers are excluded if the others fill less than this share of the range."""
_SAMPLE_SIZE = 2**22
"""Number of voxels that are sampled to find outliers."""


def display_range(
    values: NDArray[Any], *, stated: tuple[float, float] | None, window: Window | None
) -> tuple[GreyWindow | None, tuple[Caution, ...]]:
    """Return the window that maps voxels to greys, and what was guessed; None for 8-bit greys.

    Without a window or a stated range, greys span the range of the finite voxels. Outliers, at most
    one in a thousand at either end, are excluded if they take up nine tenths of that range.
    `values` are all voxels, of one channel.

    Raises:
        InputError: no voxel is finite.
    """
    if values.dtype.kind == "c":
        raise InputError("complex voxels; save their magnitude", reason=Reason.CORRUPT)
    if window is None and values.dtype == np.uint8:
        return None, ()
    from sam2unet_core.dicom.grey import GreyWindow  # noqa: PLC0415 - imports pydicom

    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        raise InputError("no voxel is finite: all are NaN or infinite", reason=Reason.CORRUPT)
    if window is not None:
        return GreyWindow(window.center, window.width), ()
    low, high, cautions = _range(finite) if stated is None else (*stated, ())
    return GreyWindow((low + high) / 2, max(high - low, 1e-12), "LINEAR_EXACT"), cautions


def to_pixels(
    plane: NDArray[Any], shown: GreyWindow | None
) -> tuple[NDArray[np.uint8], tuple[Caution, ...]]:
    """Return a slice as `(H, W, 3)` uint8, with a caution if it has non-finite values.

    `plane` is `(H, W)` greys, which `shown` maps to 8 bits, or `(H, W, 3)` colours.
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
    sample = flat[:: max(1, flat.size // _SAMPLE_SIZE)]
    if sample.size < _MIN_VOXELS or not high > low:
        return low, high, ()
    outliers = max(1, round((sample.size - 1) / _ONE_IN))
    ordered = np.partition(sample, [outliers, sample.size - 1 - outliers])
    inner_low, inner_high = float(ordered[outliers]), float(ordered[-1 - outliers])
    span = inner_high - inner_low
    if span <= 0 or span >= _MIN_SHARE * (high - low):  # span 0: all others are equal
        return low, high, ()
    message = (
        f"outliers (at most one voxel in {_ONE_IN} at either end) extend the range to {low:g} to "
        f"{high:g}: shown from {inner_low:g} to {inner_high:g}"
    )
    return inner_low, inner_high, (Caution("window_guessed", message),)


def _not_finite(bad: NDArray[np.bool_]) -> tuple[Caution, ...]:
    if not bad.any():
        return ()
    which = "all voxels" if bad.all() else "some voxels"
    message = f"{which} are not finite (NaN or infinite): shown as the lowest value"
    return (Caution("not_finite", message),)
