"""Draws the module's icon: a frame with a found structure. Usage: make_icon.py [FILE]."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 128
FINE = 4
"""The icon is drawn so many times larger and averaged, which smooths its edges."""
FRAME, FIELD, FOUND, EDGE = (38, 50, 56), (232, 170, 150), (86, 180, 233), (255, 255, 255)
ICON = Path(__file__).parent / "SAM2UNet" / "Resources" / "Icons" / "SAM2UNet.png"


def draw() -> Image.Image:
    """Return the icon, RGBA, `SIZE` pixels square."""
    axis = (np.arange(SIZE * FINE) + 0.5) / (SIZE * FINE) * 2 - 1
    x, y = axis[None, :], axis[:, None]
    picture = np.zeros((SIZE * FINE, SIZE * FINE, 4), np.float64)
    angle = np.arctan2(y - 0.12, x + 0.08)
    blob = np.hypot((x + 0.08) / 0.47, (y - 0.12) / 0.42) / (1 + 0.09 * np.cos(3 * angle))
    shade = np.clip(1.08 - 0.35 * np.hypot(x + 0.2, y + 0.3), 0, 1)
    for inside, colour in (
        (_rounded(x, y, 0.94, 0.26), FRAME),
        (_octagon(x, y, 0.78), FIELD),
        (blob < 1.14, EDGE),
        (blob < 1.0, FOUND),
    ):
        picture[np.broadcast_to(inside, picture.shape[:2])] = (*colour, 255)
    picture[..., :3] *= np.where(_octagon(x, y, 0.78), shade, 1.0)[..., None]
    picture[..., :3] *= picture[..., 3:] / 255  # weigh colours by opacity while averaging
    small = picture.reshape(SIZE, FINE, SIZE, FINE, 4).mean(axis=(1, 3))
    opaque = np.maximum(small[..., 3:] / 255, 1e-9)
    small[..., :3] /= opaque
    return Image.fromarray(np.clip(np.rint(small), 0, 255).astype(np.uint8), "RGBA")


def _rounded(x: np.ndarray, y: np.ndarray, half: float, radius: float) -> np.ndarray:
    dx, dy = np.abs(x) - (half - radius), np.abs(y) - (half - radius)
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) < radius


def _octagon(x: np.ndarray, y: np.ndarray, half: float) -> np.ndarray:
    """The image field of an endoscope: a square with its corners cut."""
    return (np.maximum(np.abs(x), np.abs(y)) < half) & (np.abs(x) + np.abs(y) < 1.5 * half)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ICON
    target.parent.mkdir(parents=True, exist_ok=True)
    draw().save(target, optimize=True)
    print(target)
