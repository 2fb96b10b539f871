"""Results by size and number of lesions."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from sam2unet_core.evaluation import Case, evaluate_arrays
from sam2unet_core.task import Task


def frame(*pieces: tuple[int, int]) -> np.ndarray:
    """A label map of 20 x 50 pixels; a piece is (first column, columns) of rows 0 to 9."""
    labels = np.zeros((20, 50), np.uint8)
    for left, width in pieces:
        labels[:10, left : left + width] = 1
    return labels


@pytest.fixture
def cases() -> list[Case]:
    """Shares 0.04, 0.05, 0.2, 0.21 of 1000 pixels, and none at all."""
    whole = frame((0, 21))
    half = frame((0, 2))
    return [
        Case("small", "P1", half, frame((0, 4))),  # 20 of 40: Dice 2/3
        Case("medium", "P1", frame((0, 5)), frame((0, 5))),  # exact
        Case("also medium", "P2", frame(), frame((0, 10), (30, 10))),  # two lesions, missed
        Case("large", "P3", whole, whole),
        Case("none", "P4", half, frame()),  # a false finding
    ]


def test_images_are_divided_by_the_share_of_the_frame(cases: list[Case], task: Task) -> None:
    of_class = evaluate_arrays(cases, task=task).summary["classes"]["polyp"]
    sizes = of_class["by_size"]
    assert {name: found["images"] for name, found in sizes.items()} == {
        "small": 1,
        "medium": 2,
        "large": 1,
    }
    dice = {name: found["scores"]["dice"] for name, found in sizes.items()}
    assert dice["small"]["mean"] == pytest.approx(2 / 3)
    assert dice["small"]["low"] is None  # one group has no interval
    assert dice["medium"]["mean"] == pytest.approx(0.5)
    # groups of Dice 1 and 0: the interval reaches from one to the other
    assert (dice["medium"]["low"], dice["medium"]["high"]) == (0.0, 1.0)
    assert sizes["small"]["scores"]["iou"]["mean"] == pytest.approx(0.5)
    assert dice["large"]["mean"] == pytest.approx(1.0)


def test_images_are_divided_by_the_number_of_lesions(cases: list[Case], task: Task) -> None:
    numbers = evaluate_arrays(cases, task=task).summary["classes"]["polyp"]["by_number"]
    assert {name: found["images"] for name, found in numbers.items()} == {"one": 3, "several": 1}
    assert numbers["one"]["scores"]["dice"]["mean"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert numbers["several"]["scores"]["dice"]["mean"] == 0.0


def test_the_table_names_the_sizes_that_are_there(cases: list[Case], task: Task) -> None:
    def shown(among: list[Case]) -> str:
        console = Console(width=140)
        with console.capture() as capture:
            console.print(evaluate_arrays(among, task=task).table())
        return capture.get()

    lines = shown(cases).splitlines()
    medium = next(line for line in lines if "Dice, 5 to 20 % of the frame" in line)
    assert [cell.strip() for cell in medium.split("│")[3:7]] == [
        "0.500",
        "0.000 to 1.000",
        "0.500",
        "2",
    ]
    assert "above 20 %" in shown(cases)
    assert "above 20 %" not in shown(cases[:3])
    assert "several lesions" not in shown(cases[:2])


def test_the_share_is_in_the_table_of_images(cases: list[Case], task: Task, tmp_path: Path) -> None:
    file, _ = evaluate_arrays(cases, task=task).write(tmp_path)
    with file.open(newline="", encoding="utf-8") as stream:
        shares = [float(row["share"]) for row in csv.DictReader(stream)]
    assert shares == pytest.approx([0.04, 0.05, 0.2, 0.21, 0.0])
