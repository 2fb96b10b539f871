"""Draw the pictures of the documentation; every one is made of phantom frames.

python docs/make_images.py [FOLDER]        FOLDER is docs/images by default
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2unet_core.media.image import overlay
from sam2unet_core.phantom import draw_frame
from sam2unet_core.task import load_preset

SEEDS = (6, 5, 18, 10, 23)
SIDE = 240


def phantom_strip() -> NDArray[np.uint8]:
    """Return `(2 * SIDE, len(SEEDS) * SIDE, 3)` uint8 RGB: frames above, masks below."""
    classes = load_preset("polyp").classes
    drawn = [draw_frame(seed, size=(SIDE, SIDE)) for seed in SEEDS]
    frames = np.concatenate([pixels for pixels, _ in drawn], axis=1)
    masks = [overlay(pixels, mask, classes) for pixels, mask in drawn]
    return np.concatenate([frames, np.concatenate(masks, axis=1)], axis=0)


def main(folder: Path) -> None:
    """Write every picture to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(phantom_strip()).save(folder / "phantom.jpg", quality=88)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
