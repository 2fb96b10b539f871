"""Draw the frames with the lowest Dice of an evaluation: frame, reference and result.

    python monai_bundle/scripts/failure_gallery.py EVAL DATASET --datalist D -o gallery.png

`EVAL` is the output of the bundle's evaluation or of `sam2unet evaluate -o`. The masks are in
`EVAL/masks`, or in the folder given by `--masks`. Frames are ranked by the mean Dice of their
classes. The gallery shows frames of the data set, so the data set's terms apply to it: do not put
it into a repository.
"""

import argparse
import csv
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sam2unet_core.data import read_dataset
from sam2unet_core.evaluation.pairs import find_predictions, match_targets, targets_of
from sam2unet_core.media.image import overlay, read_image, read_mask
from sam2unet_core.task import Task, installed_bundle, load_preset

TILE = 200
CAPTION = 18
COLUMNS = 2


def main() -> None:
    """Read the arguments, choose the frames and write the gallery."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--datalist", type=Path)
    parser.add_argument("--section", default="testing", help="section of the data list")
    parser.add_argument("--masks", type=Path, help="folder of the masks; by default EVAL/masks")
    parser.add_argument("--task", help="name of the task; by default the bundle's own")
    parser.add_argument("-n", "--number", type=int, default=24)
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery.png"))
    a = parser.parse_args()
    own = installed_bundle() / "configs" / "task.json"
    classes = (load_preset(a.task) if a.task else Task.load(own)).classes
    samples = read_dataset(a.dataset, datalist=a.datalist, section=a.section)
    masks = a.masks or a.evaluation / "masks"
    pairs, _ = match_targets(targets_of(samples), find_predictions(masks).masks, pred=masks)
    results = {target.name: path for target, path in pairs}
    images = {sample.name: sample for sample in samples}
    rows = []
    for name, scores in worst(read_scores(a.evaluation / "metrics.csv"), number=a.number):
        if name not in images:
            parser.error(f"{name} is not in {a.dataset}: give the data list that was measured")
        pixels = read_image(images[name].image)
        drawn = [
            overlay(pixels, read_mask(path, classes), classes)
            for path in (images[name].mask, results[name])
        ]
        listed = ", ".join(f"{each} {dice:.2f}" for each, dice in scores.items())
        rows.append((f"{name}: Dice {listed}", [pixels, *drawn]))
        print(rows[-1][0])
    contact_sheet(rows).save(a.output)
    print(f"wrote {a.output}, which holds parts of the data set")


def read_scores(table: Path) -> dict[str, dict[str, float]]:
    """Return the Dice by class of each image of a `metrics.csv`."""
    found: dict[str, dict[str, float]] = {}
    with table.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            found.setdefault(row["name"], {})[row["class"]] = float(row["dice"])
    return found


def worst(
    scores: dict[str, dict[str, float]], *, number: int
) -> list[tuple[str, dict[str, float]]]:
    """Return the `number` images of lowest mean Dice, ascending; equal ones by name."""
    ranked = sorted(scores.items(), key=lambda item: (np.mean(list(item[1].values())), item[0]))
    return ranked[:number]


def contact_sheet(rows: list[tuple[str, list[NDArray[np.uint8]]]]) -> Image.Image:
    """Return one image of captions with three tiles each: frame, reference, result."""
    lines = math.ceil(len(rows) / COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * 3 * TILE, lines * (TILE + CAPTION)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (caption, pictures) in enumerate(rows):
        x, y = number % COLUMNS * 3 * TILE, number // COLUMNS * (TILE + CAPTION)
        pen.text((x + 4, y + 3), caption, fill="black")
        for place, pixels in enumerate(pictures):
            tile = Image.fromarray(pixels)
            tile.thumbnail((TILE - 4, TILE - 4))
            sheet.paste(tile, (x + place * TILE, y + CAPTION))
    return sheet


if __name__ == "__main__":
    main()
