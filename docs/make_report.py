"""Draw the report of an invented run over phantom frames, and a picture of it.

python docs/make_report.py [FOLDER]        FOLDER is docs/screenshots by default

Needs chromium on the path for the pictures; the page itself needs nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2unet_core.phantom import draw_frame
from sam2unet_core.report import Entry, Failure, Findings, FindingsCollector, Page, render
from sam2unet_core.task import load_preset
from sam2unet_core.types import Frame

SIZES = {"desktop": (1100, 1500), "phone": (500, 1500)}
"""Width and height of the windows in pixels; chromium makes none narrower than 500."""
Drawn = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def sample_page() -> Page:
    """Return a report on phantom frames; the masks that were drawn stand for results."""
    task = load_preset("polyp")
    stills = [draw_frame(seed, size=(240, 320)) for seed in (6, 5, 18, 10, 23, 31)]
    video = list(pan(draw_frame(18, size=(480, 900)), frames=90, size=(240, 320)))
    empty = [draw_frame(seed, size=(240, 320)) for seed in range(40, 80)]
    nothing = [each for each in empty if not each[1].any()][:3]
    cine = Entry(
        "4f1c09d2a7e3b586/91b0c7f2d6e4a835/0d5e2f9a8b7c6143",
        "video",
        "video",
        _findings(video, seconds=0.1),
        modality="ES",
        burned_in=None,
    )
    photos = Entry(
        "4f1c09d2a7e3b586/c2a94e7d1f6b3508/7be1a2c3d4f59680",
        "photos",
        "stack",
        _findings(stills),
        modality="XC",
        spacing_mm=(0.05, 0.05),
        warnings=("2 of 8 files of this series could not be read; see below",),
    )
    clear = Entry("ward3/room2", "clear", "images", _findings(nothing), burned_in=False)
    return Page(
        title=task.title,
        entries=[cine, photos, clear],
        statuses={"done": 7, "empty": 4, "failed": 2, "skipped": 1},
        reasons={"truncated": 2, "not_an_image": 1},
        failures=[
            Failure(identity, "truncated", "the pixel data ends early; export the file again")
            for identity in ("3a7d9e21c4b5f680", "8c1b5f3e7a2d9046")
        ],
        facts=[
            ("Task", f"{task.name} {task.version}"),
            ("Threshold", f"{task.threshold:g} (a pixel belongs to a class at or above it)"),
            ("Weights, sha256", "none: these frames and outlines are drawings"),
            ("Use", "research only, not a medical device"),
        ],
    )


def pan(drawn: Drawn, *, frames: int, size: tuple[int, int]) -> Iterator[Drawn]:
    """Yield a window of `size` that moves over a large frame from left to right."""
    pixels, mask = drawn
    top = (mask.shape[0] - size[0]) // 2
    for left in np.linspace(0, mask.shape[1] - size[1], frames).astype(int):
        window = np.s_[top : top + size[0], left : left + size[1]]
        yield np.ascontiguousarray(pixels[window]), np.ascontiguousarray(mask[window])


def screenshot(page: Path, picture: Path, *, size: tuple[int, int]) -> None:
    """Open a page in chromium without a window and save what it shows as PNG."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            "chromium",
            "--headless",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            f"--window-size={size[0]},{size[1]}",
            f"--screenshot={picture}",
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--no-sandbox")  # chromium refuses its sandbox to root
        subprocess.run([*command, page.resolve().as_uri()], check=True, capture_output=True)


def main(folder: Path) -> None:
    """Write the pictures to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "report.html"
        page.write_text(render(sample_page()), encoding="utf-8")
        for name, size in SIZES.items():
            picture = Path(scratch) / f"{name}.png"
            screenshot(page, picture, size=size)
            Image.open(picture).convert("RGB").save(folder / f"report-{name}.jpg", quality=80)


def _findings(drawn: list[Drawn], *, seconds: float | None = None) -> Findings:
    task = load_preset("polyp")
    collector = FindingsCollector(task, seconds)
    for index, (pixels, mask) in enumerate(drawn):
        inside = mask > 0
        probabilities = np.where(inside, 0.93, 0.02).astype(np.float32)[None]
        frame = Frame(pixels, index, 0, index + 1, None if seconds is None else index * seconds)
        labels = inside.astype(np.uint8)
        collector.add(frame, probabilities, masks=inside[None], labels=labels)
    return collector.result()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "screenshots")
