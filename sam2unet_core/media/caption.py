"""A line of text at the foot of a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont


def captioned(pixels: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """Return the picture with a line of text at its foot, on a dark band, as large as fits.

    Args:
        pixels: `(H, W, 3)` uint8 RGB; left as it is.
        text: to be written.
    """
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
