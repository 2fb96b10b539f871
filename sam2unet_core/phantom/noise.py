"""Smooth random fields, reproducible on every platform."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]
"""`(H, W)` float64, row-major."""

_UNIT = 3.6  # scales a cubic B-spline of uniform(-1, 1) knots to a standard deviation near 1


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Return one number from `[low, high)`.

    The phantom draws only from `Generator.random`, whose stream is stable across NumPy versions.
    """
    return low + (high - low) * float(rng.random())


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], *, cells: float) -> Field:
    """Draw a smooth field of mean near 0 and standard deviation near 1.

    It is a bicubic B-spline of uniform random knots, with `cells` knots along the shorter side.
    """
    height, width = size
    step = min(size) / cells
    rows, columns = _spline_weights(height, step), _spline_weights(width, step)
    knots = 2 * rng.random((rows.shape[1], columns.shape[1])) - 1
    field: Field = _UNIT * (rows @ knots @ columns.T)
    return field


@lru_cache(maxsize=64)
def _spline_weights(length: int, step: float) -> Field:
    """Return `(length, knots)` cubic B-spline weights for one knot every `step` pixels."""
    position = (np.arange(length) + 0.5) / step
    knot = np.floor(position).astype(np.int64)
    t = position - knot
    weights = np.zeros((length, int(knot[-1]) + 4))
    line = np.arange(length)
    weights[line, knot] = (1 - t) ** 3 / 6
    weights[line, knot + 1] = (3 * t**3 - 6 * t**2 + 4) / 6
    weights[line, knot + 2] = (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6
    weights[line, knot + 3] = t**3 / 6
    return weights
