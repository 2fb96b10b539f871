"""Small pictures of frames with their contours, as the report holds them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2unet_core.media.image import overlay
from sam2unet_core.task import Task

SIDE = 320
"""Longest side of a thumbnail in pixels."""


@dataclass(frozen=True)
class Thumbnail:
    """A frame with its contours.

    Attributes:
        number: 1-based place of the frame in its series.
        time_s: seconds from the first frame, or None.
        area_px: pixels of any class.
        width, height: of the picture in pixels.
        jpeg: the picture, in base64.
    """

    number: int
    time_s: float | None
    area_px: int
    width: int
    height: int
    jpeg: str


@dataclass(frozen=True)
class Picture:
    """A frame with its contours, not encoded yet: `(h, w, 3)` uint8 RGB."""

    order: int
    number: int
    time_s: float | None
    area_px: int
    pixels: NDArray[np.uint8]

    def encoded(self) -> Thumbnail:
        """Return it as JPEG in base64."""
        stream = io.BytesIO()
        Image.fromarray(self.pixels).save(stream, "JPEG", quality=82)
        text = base64.b64encode(stream.getvalue()).decode("ascii")
        height, width = self.pixels.shape[:2]
        return Thumbnail(self.number, self.time_s, self.area_px, width, height, text)


def draw_thumbnail(
    pixels: NDArray[np.uint8], labels: NDArray[np.uint8], *, task: Task
) -> NDArray[np.uint8]:
    """Draw contours over a frame that is scaled down to `SIDE` at most.

    Args:
        pixels: `(H, W, 3)` uint8 RGB.
        labels: `(H, W)` uint8.
        task: gives the colours.

    Returns:
        pixels: `(h, w, 3)` uint8 RGB.
    """
    height, width = labels.shape
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    nearest = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    return overlay(_scaled_down(pixels, size), nearest, task.classes)


def _scaled_down(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a picture at a smaller size = (width, height).

    Blocks of pixels become their mean, and what is then about twice too large at most is
    interpolated: as good to look at as means alone, in a seventh to a half of the time.
    """
    height, width = pixels.shape[:2]
    side = min(max(height, width) // SIDE, height, width)
    small: NDArray[Any] = pixels
    if side > 1:
        rows, columns = height // side, width // side
        blocks = small[: rows * side, : columns * side]
        small = cv2.resize(blocks, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_LINEAR), np.uint8)
