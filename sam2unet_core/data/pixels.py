"""Read the pixels of a sample for training or evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.errors import DataError
from sam2unet_core.media.image import read_picture
from sam2unet_core.task import Task


def read_sample(path: Path, task: Task) -> NDArray[np.uint8]:
    """Read an image as `sam2unet segment` feeds it to the network.

    Where that would guess the grey range with a warning, this raises an error: training must not
    depend on guesses that differ from image to image.

    Returns:
        The pixels, `(H, W, 3)` uint8 RGB.

    Raises:
        DataError: unreadable; more than 8 bits of unknown depth; or more than 8 bits for a task
            with a grey window, which needs values with a unit.
    """
    picture = read_picture(path, window=task.window)
    if picture.cautions:
        reasons = "; ".join(caution.message for caution in picture.cautions)
        raise DataError(
            f"{path}: {reasons}. Save the pictures with 8 bits, "
            + ("the window applied" if task.window else "or state their depth (PNG: sBIT)")
        )
    return picture.pixels
