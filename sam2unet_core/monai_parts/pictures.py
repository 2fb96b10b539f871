"""Pictures of a training run: its curves and a contact sheet of validation frames."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sam2unet_core.data import Sample
from sam2unet_core.media.image import overlay, read_image, read_mask
from sam2unet_core.segmenter import Segmenter

TILE = 224
CAPTION = 18


def draw_curve(history: Path, picture: Path) -> None:
    """Plot training loss and validation Dice of `history.csv` over the epochs, to a PNG."""
    with history.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    losses = figure.subplots()
    losses.set(xlabel="epoch", ylabel="training loss", title="Training loss and validation Dice")
    losses.plot(*_column(rows, "loss"), color="#666666", marker="o", ms=3, label="training loss")
    scores = losses.twinx()
    scores.set(ylabel="validation Dice", ylim=(0, 1))
    epochs, dice = _column(rows, "val_dice")
    scores.plot(epochs, dice, color="#0072B2", marker="o", ms=3, label="validation Dice")
    if dice:
        best = int(np.argmax(dice))
        scores.annotate(
            f"best {dice[best]:.3f}",
            (epochs[best], dice[best]),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            color="#0072B2",
        )
    lines = losses.get_lines() + scores.get_lines()
    losses.legend(lines, [str(line.get_label()) for line in lines], loc="center right")
    losses.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(picture)


def draw_contact_sheet(
    segmenter: Segmenter, samples: Sequence[Sample], picture: Path, *, most: int = 12
) -> None:
    """Draw reference and result of frames side by side, with their Dice, to a PNG.

    Args:
        segmenter: segments the frames.
        samples: frames with masks; `most` of them are shown, evenly spaced.
        picture: the PNG to write.
        most: how many frames to show at most.
    """
    chosen = [samples[i] for i in np.unique(np.linspace(0, len(samples) - 1, most).astype(int))]
    columns = min(3, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    sheet = Image.new("RGB", (columns * 2 * TILE, rows * (TILE + CAPTION)), "white")
    pen = ImageDraw.Draw(sheet)
    classes = segmenter.task.classes
    for number, sample in enumerate(chosen):
        if sample.mask is None:
            continue
        pixels, truth = read_image(sample.image), read_mask(sample.mask, classes)
        found = segmenter.label_maps(pixels[None])[0]
        x, y = number % columns * 2 * TILE, number // columns * (TILE + CAPTION)
        for shift, labels in ((0, truth), (TILE, found)):
            sheet.paste(_tile(overlay(pixels, labels, classes)), (x + shift, y + CAPTION))
        pen.text((x + 4, y + 3), "reference", fill="black")
        pen.text((x + TILE + 4, y + 3), f"result, Dice {_dice(found, truth):.2f}", fill="black")
    sheet.save(picture)


def _column(rows: list[dict[str, str]], name: str) -> tuple[list[int], list[float]]:
    kept = [row for row in rows if row.get(name)]
    return [int(float(row["epoch"])) for row in kept], [float(row[name]) for row in kept]


def _tile(pixels: NDArray[np.uint8]) -> Image.Image:
    tile = Image.fromarray(pixels)
    tile.thumbnail((TILE - 4, TILE - 4))
    return tile


def _dice(found: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Return the Dice of all classes together; 1 for two empty maps."""
    total = np.count_nonzero(found) + np.count_nonzero(truth)
    return 1.0 if total == 0 else 2 * float(((found == truth) & (truth > 0)).sum()) / total
