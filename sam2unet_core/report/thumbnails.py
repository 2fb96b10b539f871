"""Thumbnails of frames with contours, for the report."""

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
"""Longest side of a thumbnail, in pixels."""


@dataclass(frozen=True)
class Thumbnail:
    """A frame with contours.

    Attributes:
        number: 1-based number of the frame in its series.
        time_s: seconds from the first frame, or None.
        area_px: area of all classes together.
        width, height: of the thumbnail in pixels.
        jpeg: the image, in base64.
    """

    number: int
    time_s: float | None
    area_px: int
    width: int
    height: int
    jpeg: str


@dataclass(frozen=True)
class Picture:
    """A thumbnail before encoding; `pixels` is `(h, w, 3)` uint8 RGB."""

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
    """Draw contours of `(H, W)` labels over `(H, W, 3)` RGB pixels, scaled down to `SIDE`."""
    height, width = labels.shape
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    nearest = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    return overlay(_scaled_down(pixels, size), nearest, task.classes)


def _scaled_down(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale a picture down to size = (width, height).

    Averaging whole blocks and then interpolating looks as good as averaging alone and is two to
    seven times as fast.
    """
    height, width = pixels.shape[:2]
    side = min(max(height, width) // SIDE, height, width)
    small: NDArray[Any] = pixels
    if side > 1:
        rows, columns = height // side, width // side
        blocks = small[: rows * side, : columns * side]
        small = cv2.resize(blocks, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_LINEAR), np.uint8)
