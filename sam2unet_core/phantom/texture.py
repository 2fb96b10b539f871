"""Draw a texture: grey or tinted noise at several scales, for images without an object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.phantom.noise import smooth_noise, uniform

CELLS = (2, 5, 11, 23, 47)
"""Knots along the shorter side, from large patches to grain."""


def draw_texture(
    rng: np.random.Generator | int, *, size: tuple[int, int] = (256, 256)
) -> NDArray[np.uint8]:
    """Draw smooth noise at several scales, with speckle, tint and a field of view.

    Args:
        rng: a generator, or its seed.
        size: (height, width) in pixels.

    Returns:
        Pixels `(H, W, 3)` uint8 RGB: half of the textures are grey, the others tinted; a third
        have bright or dark lines, like vessels or tissue layers; half are cropped to a disc or a
        band, black outside.
    """
    rng = np.random.default_rng(rng) if isinstance(rng, int) else rng
    level = np.zeros(size)
    for cells in CELLS:
        level += uniform(rng, 0.0, 0.25) * smooth_noise(rng, size, cells=cells)
    level += uniform(rng, 0.15, 0.65)
    if rng.random() < 1 / 3:
        cells = CELLS[1 + int(3 * rng.random())]
        course = smooth_noise(rng, size, cells=cells)
        level += uniform(rng, -0.5, 0.5) * np.exp(-((course / uniform(rng, 0.05, 0.3)) ** 2))
    if rng.random() < 0.5:  # ultrasound speckle, proportional to the signal
        level *= 1 + uniform(rng, 0.1, 0.6) * (2 * rng.random(size) - 1)
    tint = np.ones(3)
    if rng.random() < 0.5:
        tint = 0.2 + 0.8 * rng.random(3)
    rgb = np.clip(level, 0, 1)[..., None] * tint
    if rng.random() < 0.5:
        rgb *= _field_of_view(rng, size)[..., None]
    return np.floor(rgb * 255 + 0.5).astype(np.uint8)


def _field_of_view(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.bool_]:
    height, width = size
    y = (np.arange(height)[:, None] + 0.5) * 2 / height - 1
    x = (np.arange(width)[None, :] + 0.5) * 2 / width - 1
    if rng.random() < 0.5:
        disc: NDArray[np.bool_] = np.hypot(x, y) < uniform(rng, 0.7, 1.1)
        return disc
    left, right = uniform(rng, -1.0, -0.3), uniform(rng, 0.3, 1.0)
    lean = uniform(rng, -0.4, 0.4)
    band: NDArray[np.bool_] = (x > left + lean * y) & (x < right - lean * y)
    return band
