"""Small data sets on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2unet_core.task import Task, TaskClass

CODE = ("SCT", "1", "thing")
Pair = Callable[..., None]


@pytest.fixture
def task() -> Task:
    """One class."""
    polyp = TaskClass(1, "polyp", "Polyp", CODE, CODE, None, (200, 30, 40))
    return Task("polyp", "1", "Polyp", (32, 32), (polyp,))


@pytest.fixture
def add(tmp_path: Path) -> Pair:
    """Add an image and its mask, 255 in a square, to a data set below `tmp_path`."""

    def write(
        name: str,
        *,
        image: str | None = ".jpg",
        mask: str | None = ".png",
        size: tuple[int, int] = (12, 16),
        value: int = 255,
        masks: str = "masks",
    ) -> None:
        pixels = np.full((12, 16, 3), 90, np.uint8)
        labels = np.zeros(size, np.uint8)
        labels[2:6, 3:9] = value
        for folder, suffix, array in (("images", image, pixels), (masks, mask, labels)):
            if suffix is not None:
                path = tmp_path / folder / f"{name}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)

    return write
