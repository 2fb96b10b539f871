"""Draw a phantom volume: a head-like body with two curved structures of two parts each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SPACING_MM = (1.0, 1.0, 1.0)
"""(slice, row, column) distance of the voxels."""


def draw_volume(
    rng: np.random.Generator | int, *, size: tuple[int, int, int] = (64, 96, 96)
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Draw a volume and its label map.

    Args:
        rng: a generator, or its seed.
        size: (slices, rows, columns).

    Returns:
        Voxels `(N, H, W)` int16 from 0 to about 1000, as in MR, and labels `(N, H, W)` uint8: 1 for
        the front part of the two structures, 2 for the rest.
    """
    rng = np.random.default_rng(rng) if isinstance(rng, int) else rng
    axes = [np.linspace(-1, 1, count) for count in size]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    body = np.sqrt((z / 0.95) ** 2 + (y / 0.9) ** 2 + (x / 0.75) ** 2)
    voxels = 420 * _inside(body, 1.0) + 130 * _inside(body, 0.86) - 180 * _inside(body, 0.8)
    labels = np.zeros(size, np.uint8)
    for side in (-1, 1):
        middle = side * (0.28 + 0.12 * (y + 0.1) ** 2)  # bent outwards
        width = 0.09 + 0.03 * np.cos(2.5 * y + 1.2)
        tube = np.hypot((x - middle) / width, (z + 0.1 - 0.15 * y) / (1.2 * width))
        found = (tube < 1) & (np.abs(y) < 0.42)
        voxels += 210 * _inside(tube, 1.0) * _inside(np.abs(y) / 0.42, 1.0)
        labels[found] = np.where(y[found] < -0.05, 1, 2)
    voxels += rng.normal(0, 18, size)
    return np.clip(np.rint(voxels), 0, 2000).astype(np.int16), labels


def _inside(distance: NDArray[np.float64], edge: float) -> NDArray[np.float64]:
    """Return 1 inside, 0 outside, and a smooth step between."""
    return 1 / (1 + np.exp(np.clip((distance - edge) * 40, -60, 60)))
