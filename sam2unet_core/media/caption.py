"""A line of text at the bottom of a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont


def captioned(pixels: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """Return `(H, W, 3)` uint8 RGB pixels with a line of text on a dark band at the bottom."""
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image, "RGBA")
    height, width = pixels.shape[:2]
    size = max(8, height // 36)
    font = ImageFont.load_default(size)
    if draw.textlength(text, font) > width - 4:
        size = max(6, int(size * (width - 4) / draw.textlength(text, font)))
        font = ImageFont.load_default(size)
    draw.rectangle((0, height - size - size // 2, width, height), fill=(0, 0, 0, 160))
    draw.text((2, height - size - size // 4), text, font=font, fill=(255, 255, 255, 255))
    return np.asarray(image)
