"""The pixels of an image that is learnt from or measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.errors import DataError
from sam2unet_core.media.image import read_picture
from sam2unet_core.task import Task


def read_sample(path: Path, task: Task) -> NDArray[np.uint8]:
    """Read an image as `sam2unet segment` shows it to the network.

    What is guessed there, picture by picture and with a warning, is refused here: a guess that
    differs from picture to picture is nothing to learn from.

    Returns:
        The pixels, `(H, W, 3)` uint8 RGB.

    Raises:
        DataError: unreadable; more than 8 bits of which nobody knows how deep they are; or more
            than 8 bits where the task shows a grey window, which needs values with a unit.
    """
    picture = read_picture(path, window=task.window)
    if picture.cautions:
        reasons = "; ".join(caution.message for caution in picture.cautions)
        raise DataError(
            f"{path}: {reasons}. Save the pictures with 8 bits"
            + (", the window applied" if task.window is not None else "")
            + ("" if task.window is not None else ", or state their depth (PNG: sBIT)")
        )
    return picture.pixels
