"""Write phantom frames as a data set: images, masks and groups."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sam2unet_core.errors import DataError
from sam2unet_core.phantom.frame import SMALLEST, draw_frame
from sam2unet_core.phantom.scene import Patient

FRAMES_PER_PATIENT = 4


@dataclass(frozen=True)
class WrittenFrame:
    """One frame of a data set.

    Attributes:
        image: RGB PNG.
        mask: grey PNG of 0 and 255.
        group: the simulated patient.
        has_polyp: whether the mask has foreground.
    """

    image: Path
    mask: Path
    group: str
    has_polyp: bool


def write_dataset(
    out: Path | str,
    *,
    frames: int = 100,
    seed: int = 0,
    size: tuple[int, int] = (256, 256),
) -> list[WrittenFrame]:
    """Write a data set at once; see `iterate_dataset`."""
    return list(iterate_dataset(out, frames=frames, seed=seed, size=size))


def iterate_dataset(
    out: Path | str,
    *,
    frames: int = 100,
    seed: int = 0,
    size: tuple[int, int] = (256, 256),
) -> Iterator[WrittenFrame]:
    """Write `images/NNNN.png`, `masks/NNNN.png` and `groups.csv` (name, group), frame by frame.

    Each group of four frames comes from one simulated patient. A frame depends only on the seed and
    its number, so a longer data set starts with the frames of a shorter one.

    Args:
        out: folder to write; new or empty.
        frames: number of frames, from 1.
        seed: from 0; the same seed gives the same frames.
        size: (height, width) in pixels, each at least 32.

    Yields:
        Each frame once it is written.

    Raises:
        DataError: the folder is not empty or a number is out of range; nothing is written.
    """
    out = Path(out)
    _check(out, frames=frames, seed=seed, size=size)
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True)
    with (out / "groups.csv").open("w", newline="", encoding="utf-8") as stream:
        groups = csv.writer(stream, lineterminator="\n")
        groups.writerow(("name", "group"))
        for index in range(frames):
            frame = _write_frame(out, index, seed=seed, size=size)
            groups.writerow((frame.image.stem, frame.group))
            yield frame


def _check(out: Path, *, frames: int, seed: int, size: tuple[int, int]) -> None:
    if frames < 1 or seed < 0:
        raise DataError(f"frames is {frames} and seed is {seed}: expected from 1 and from 0")
    if min(size) < SMALLEST:
        raise DataError(
            f"phantom frames of {size[0]} x {size[1]} pixels: the minimum is {SMALLEST} x "
            f"{SMALLEST}"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: not an empty folder; name a new one")


def _write_frame(out: Path, index: int, *, seed: int, size: tuple[int, int]) -> WrittenFrame:
    number = index // FRAMES_PER_PATIENT
    patient = Patient.draw(np.random.default_rng((seed, 0, number)))
    pixels, mask = draw_frame(np.random.default_rng((seed, 1, index)), size=size, patient=patient)
    frame = WrittenFrame(
        image=out / "images" / f"{index:04d}.png",
        mask=out / "masks" / f"{index:04d}.png",
        group=f"patient{number:03d}",
        has_polyp=bool(mask.any()),
    )
    Image.fromarray(pixels).save(frame.image)
    Image.fromarray(mask * np.uint8(255)).save(frame.mask)
    return frame
