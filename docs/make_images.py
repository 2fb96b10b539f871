"""Draw the pictures of the documentation, of phantom frames and of the numbers kept beside them.

python docs/make_images.py [FOLDER]        FOLDER is docs/images by default
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib.pyplot as plt
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


def starter_curve(history: Path, picture: Path) -> None:
    """Plot loss and validation Dice of the starter's stages, one after the other."""
    with history.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(7.2, 4.6), dpi=110)
    validated = [i for i, row in enumerate(rows) if row["validation_dice"]]
    above.plot(validated, [float(rows[i]["validation_dice"]) for i in validated], "o-", ms=3)
    below.plot([float(row["loss"]) for row in rows], color="tab:red")
    above.set_ylabel("validation Dice")
    below.set_ylabel("training loss")
    below.set_xlabel("epochs, all stages")
    starts = [i for i, row in enumerate(rows) if not i or row["stage"] != rows[i - 1]["stage"]]
    for start in starts:
        for axis in (above, below):
            axis.axvline(start, color="0.7", linewidth=0.8)
        side = rows[start]["side"]
        if start and side == rows[start - 1]["side"]:
            continue
        above.text(
            start,
            1.02,
            f"{side}²",
            transform=above.get_xaxis_transform(),
            ha="left",
            va="bottom",
            fontsize=8,
        )
    above.set_title("side of the frames in pixels, by stage", fontsize=8, loc="right", pad=16)
    for axis in (above, below):
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(picture, metadata={"Software": None})
    plt.close(figure)


def main(folder: Path) -> None:
    """Write every picture to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(phantom_strip()).save(folder / "phantom.jpg", quality=88)
    history = Path(__file__).parent / "starter_history.csv"
    starter_curve(history, folder / "starter-curve.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
