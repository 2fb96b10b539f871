"""A small data set with predictions as `segment` names them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sam2unet_core.media.image import write_mask, write_probability
from sam2unet_core.task import Task, TaskClass

CODE = ("SCT", "1", "thing")
SIZE = (24, 30)


def square(left: int, *, width: int = 10) -> np.ndarray:
    """A square of rows 4 to 13."""
    labels = np.zeros(SIZE, np.uint8)
    labels[4:14, left : left + width] = 1
    return labels


@pytest.fixture
def task() -> Task:
    """One class."""
    polyp = TaskClass(1, "polyp", "Polyp", CODE, CODE, None, (200, 30, 40))
    return Task("polyp", "1", "Polyp", (32, 32), (polyp,))


@pytest.fixture
def folders(tmp_path: Path, task: Task) -> tuple[Path, Path]:
    """(predictions, data set): four images.

    p1/a: 10x10 shifted by 5 (Dice 0.5). p1/b: exact. p2/c: empty, with a false finding.
    p2/d: empty, and nothing predicted.
    """
    pred, gt = tmp_path / "pred", tmp_path / "Kvasir"
    none = np.zeros(SIZE, np.uint8)
    cases = {
        "p1/a": (square(10), square(5)),
        "p1/b": (square(5), square(5)),
        "p2/c": (square(3), none),
        "p2/d": (none, none),
    }
    for name, (prediction, truth) in cases.items():
        for path, labels in (
            (pred / f"{name}.jpg.mask.png", prediction),
            (gt / "masks" / f"{name}.png", truth),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_mask(path, labels, task.classes)
        soft = np.where(prediction > 0, 0.9, 0.2).astype(np.float32)
        soft[0, 0] = 0.6
        write_probability(pred / f"{name}.jpg.prob1.png", soft)
    return pred, gt
