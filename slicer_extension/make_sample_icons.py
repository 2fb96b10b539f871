"""Draws the pictures of the sample data. Usage: make_sample_icons.py [FOLDER]; needs sam2unet."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from sam2unet_core.phantom import draw_frame, draw_volume

SIZE = (96, 128)
SEED = 7
ICONS = Path(__file__).parent / "SAM2UNet" / "Resources" / "Icons"


def draw() -> dict[str, Image.Image]:
    """Return the pictures by file name."""
    frame, _ = draw_frame(SEED, size=SIZE, polyps=1)
    voxels, _ = draw_volume(SEED, size=(SIZE[0], 96, SIZE[1]))
    grey = np.clip(voxels[:, voxels.shape[1] // 2] / 4, 0, 255).astype(np.uint8)
    return {
        "SampleClip.png": Image.fromarray(frame).quantize(64),
        "SampleVolume.png": Image.fromarray(grey).quantize(32),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ICONS
    for name, picture in draw().items():
        picture.save(folder / name, optimize=True)
        print(folder / name)
