"""Lesions of one training frame pasted into another."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sam2unet_core.monai_parts import RandPastedLesion
from sam2unet_core.task import Task, load_preset

GREY, GREEN = (120, 120, 120), (20, 200, 60)


def write(folder: Path, name: str, image: np.ndarray, label: np.ndarray) -> dict[str, str]:
    paths = {"image": folder / f"{name}.png", "label": folder / f"{name}_mask.png"}
    cv2.imwrite(str(paths["image"]), image[..., ::-1])
    cv2.imwrite(str(paths["label"]), label * 255)
    return {key: str(path) for key, path in paths.items()}


@pytest.fixture
def task() -> Task:
    return load_preset("polyp")


@pytest.fixture
def donor(tmp_path: Path) -> dict[str, str]:
    """A green disc of radius 20, as marked, on black."""
    image, label = np.zeros((100, 120, 3), np.uint8), np.zeros((100, 120), np.uint8)
    cv2.circle(image, (60, 50), 24, GREEN, -1)
    cv2.circle(label, (60, 50), 20, 1, -1)
    return write(tmp_path, "donor", image, label)


def frame(height: int = 200, width: int = 240) -> dict[str, torch.Tensor]:
    """A grey frame without a lesion, black in its left quarter."""
    image = torch.tensor(GREY, dtype=torch.uint8)[:, None, None].repeat(1, height, width)
    image[:, :, : width // 4] = 0
    return {"image": image, "label": torch.zeros((1, height, width), dtype=torch.uint8)}


def test_the_label_lies_where_the_lesion_came_to_lie(task: Task, donor: dict[str, str]) -> None:
    """Colours stay apart, so that the pixels can tell; sizes are those of the frame's."""
    paste = RandPastedLesion([donor], task, scale=(1.0, 1.0), match=(0.0, 0.0))
    areas, centres = [], []
    for seed in range(30):
        paste.set_random_state(seed)
        before = frame()
        after = paste(dict(before))
        assert before["image"].max() == 120
        assert not before["label"].any()
        assert after["image"].shape == before["image"].shape
        assert after["image"].dtype == after["label"].dtype == torch.uint8
        assert after["label"].max() <= 1
        marked = after["label"][0].bool()
        assert not marked[:, :60].any()
        assert not after["image"][:, :, :60].any()
        green = after["image"][1].int() - after["image"][0].int()
        assert not marked.any() or green[marked].min() > 30
        assert green[~marked].float().mean() < 20  # a soft rim, no more
        areas.append(int(marked.sum()))
        if areas[-1] > 4800:
            centres.append(marked.nonzero().float().mean(0))
    whole = np.pi * 40**2  # a frame twice as high shows it twice as large
    assert max(areas) == pytest.approx(whole, rel=0.03)
    assert len(centres) >= 5
    assert torch.stack(centres).std(0).min() > 10


def test_the_label_is_turned_and_cut_as_the_lesion_is(task: Task, tmp_path: Path) -> None:
    """A green L, which looks different from every side, near a corner; its label is as exact."""
    image, label = np.full((100, 120, 3), 120, np.uint8), np.zeros((100, 120), np.uint8)
    for part in (np.s_[8:60, 10:24], np.s_[46:60, 10:70]):
        image[part], label[part] = GREEN, 1
    paste = RandPastedLesion([write(tmp_path, "l", image, label)], task, (1.0, 1.0), (0.0, 0.0))
    shapes: set[int] = set()
    for seed in range(40):
        paste.set_random_state(seed)
        after = paste(frame())
        marked = after["label"][0].bool().numpy()
        green = (after["image"][1].int() - after["image"][0].int()).numpy()
        inner = cv2.erode(marked.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
        beyond = cv2.dilate(marked.astype(np.uint8), np.ones((25, 25), np.uint8)) == 0
        assert not inner.any() or green[inner].min() > 150
        assert green[beyond].max(initial=0) == 0
        box = marked[:, marked.any(0)][marked.any(1)]
        if min(box.shape) > 60:  # the whole of it
            rows = np.array_split(box, 2)
            quarters = [part.mean() for row in rows for part in np.array_split(row, 2, axis=1)]
            shapes.add(int(np.argmin(quarters)))
    assert shapes >= {0, 1, 2, 3}  # the corner that an L leaves free


def test_a_donor_without_a_label_changes_nothing(task: Task, donor: dict[str, str]) -> None:
    paste = RandPastedLesion([{"image": donor["image"]}], task)
    before = frame()
    assert torch.equal(paste(before)["image"], before["image"])


def test_colours_come_nearer_to_the_place(task: Task, donor: dict[str, str]) -> None:
    apart = []
    for share in (0.0, 1.0):
        paste = RandPastedLesion([donor], task, scale=(1.0, 1.0), match=(share, share))
        paste.set_random_state(4)
        after = paste(frame())
        marked = after["label"][0].bool()
        assert marked.any()
        mean = after["image"].float()[:, marked].mean(1)
        apart.append((mean - torch.tensor(GREY)).abs().max().item())
    assert apart[1] < 0.6 * apart[0]


def test_the_same_seed_pastes_the_same(task: Task, donor: dict[str, str]) -> None:
    results = []
    for seed in (1, 1, 2):
        paste = RandPastedLesion([donor], task)
        paste.set_random_state(seed)
        results.append(paste(frame())["image"])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_a_donor_without_a_lesion_changes_nothing(tmp_path: Path, task: Task) -> None:
    empty = write(tmp_path, "e", np.full((50, 60, 3), 99, np.uint8), np.zeros((50, 60), np.uint8))
    paste = RandPastedLesion([empty], task)
    before = frame()
    after = paste(before)
    assert torch.equal(after["image"], before["image"])
    assert not after["label"].any()


def test_pasted_classes_replace_those_of_the_frame(tmp_path: Path) -> None:
    """Two classes that exclude one another stay so where lesions meet."""
    task = load_preset("nerve_ultrasound")
    values = [c.value for c in task.classes]
    image, label = np.full((90, 90, 3), 150, np.uint8), np.zeros((90, 90), np.uint8)
    label[20:70, 20:70] = values[1]
    mask = tmp_path / "m.png"
    cv2.imwrite(str(tmp_path / "i.png"), image)
    cv2.imwrite(str(mask), label)
    paste = RandPastedLesion([{"image": str(tmp_path / "i.png"), "label": str(mask)}], task)
    paste.set_random_state(0)
    labels = torch.zeros((len(values), 90, 90), dtype=torch.uint8)
    labels[0] = 1
    after = paste({"image": torch.full((3, 90, 90), 140, dtype=torch.uint8), "label": labels})
    assert after["label"][1].any()
    assert after["label"].sum(0).max() == 1
