"""Clips loaded from a video file: which of its frames they hold, and at what fraction of its size.

Both are attributes of the sequence, so that a saved scene has them. Masks of such a clip have the
file's own size, whatever size its frames were loaded at.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PREFIX = "SAM2UNet."


@dataclass(frozen=True)
class Clip:
    """What was loaded of a video file.

    Attributes:
        firstFrame: the frame of the file that is the first one of the sequence, from 0.
        step: every how many frames of the file were loaded.
        scale: by how much height and width were divided.
        rows, columns: size of the file's frames in pixels.
    """

    firstFrame: int
    step: int
    scale: int
    rows: int
    columns: int

    @classmethod
    def of(cls, sequence: Any) -> Clip | None:
        """Return what a sequence holds of a video file; None for other sequences."""
        found = [sequence.GetAttribute(_PREFIX + field.name) for field in fields(cls)]
        if not all(value and value.isdigit() for value in found):
            return None
        return cls(*map(int, found))

    def mark(self, sequence: Any) -> None:
        """Note it as attributes of a sequence."""
        for name, value in asdict(self).items():
            sequence.SetAttribute(_PREFIX + name, str(value))

    def frame(self, item: int) -> int:
        """Return which frame of the file an item of the sequence is, from 0."""
        return self.firstFrame + self.step * item

    def fileToItem(self) -> NDArray[np.float64]:
        """Return the `(4, 4)` matrix from pixel indices of the file to those of the sequence.

        The centre of a loaded pixel is that of the square of pixels it was made of.
        """
        matrix = np.diag([1 / self.scale, 1 / self.scale, 1.0, 1.0])
        matrix[:2, 3] = -(self.scale - 1) / (2 * self.scale)
        return matrix

    def enlarged(self, masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return masks `(..., H, W)` of loaded frames at the size of the file's."""
        for axis in (-2, -1):
            masks = np.repeat(masks, self.scale, axis=axis)
        return masks[..., : self.rows, : self.columns]
