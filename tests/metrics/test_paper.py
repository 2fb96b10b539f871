"""The paper's protocol against loops over images and thresholds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sam2unet_core.errors import DataError
from sam2unet_core.metrics import PaperProtocol
from sam2unet_core.metrics.paper import resized, stretched


@pytest.fixture
def images() -> list[tuple[np.ndarray, np.ndarray]]:
    """Three images: a soft map each, of different sizes, and its mask."""
    rng = np.random.default_rng(5)
    found = []
    for height, width in ((30, 40), (25, 60), (48, 33)):
        truth = np.zeros((height, width), bool)
        truth[5:20, 8:25] = True
        noise = rng.random((height, width))
        probability = 0.1 + 0.5 * noise + 0.3 * np.roll(truth, 3, axis=1)
        found.append((probability.astype(np.float32), truth))
    return found


def _greys(probability: np.ndarray) -> np.ndarray:
    p = probability.astype(np.float64)
    return np.floor((p - p.min()) / (p.max() - p.min()) * 255)


def test_mdice_and_miou_are_means_over_256_thresholds_of_the_averaged_curve(
    images: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    dice, iou = np.zeros((3, 256)), np.zeros((3, 256))
    for row, (probability, truth) in enumerate(images):
        for threshold in range(256):
            mask = _greys(probability) >= threshold
            tp = (mask & truth).sum()
            dice[row, threshold] = 2 * tp / (mask.sum() + truth.sum())
            iou[row, threshold] = tp / (mask | truth).sum()
    protocol = PaperProtocol()
    for probability, truth in images:
        protocol.add(probability, truth)
    found = protocol.results()
    assert found["mDice"] == pytest.approx(dice.mean(axis=0).mean(), abs=1e-9)
    assert found["mIoU"] == pytest.approx(iou.mean(axis=0).mean(), abs=1e-9)


def test_mae_adaptive_f_and_iou_by_their_definitions(
    images: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    errors, fs, ious = [], [], []
    for probability, truth in images:
        p = _greys(probability) / 255
        errors.append(np.abs(p - truth).mean())
        mask = p >= min(2 * p.mean(), 1)
        precision, recall = (mask & truth).sum() / mask.sum(), (mask & truth).sum() / truth.sum()
        fs.append(1.3 * precision * recall / (0.3 * precision + recall))
        ious.append((truth & (p > 0.5)).sum() / (truth | (p > 0.5)).sum())
    protocol = PaperProtocol()
    for probability, truth in images:
        protocol.add(probability, truth)
    found = protocol.results()
    assert found["MAE"] == pytest.approx(np.mean(errors), abs=1e-9)
    assert found["adaptive F"] == pytest.approx(np.mean(fs), abs=1e-9)
    assert found["IoU"] == pytest.approx(np.mean(ious), abs=1e-9)


def test_a_perfect_map_scores_one_and_an_inverted_one_nothing() -> None:
    truth = np.zeros((32, 32), bool)
    truth[8:20, 8:20] = True
    perfect, inverted = PaperProtocol(), PaperProtocol()
    perfect.add(truth.astype(np.float32), truth)
    inverted.add(1 - truth.astype(np.float32), truth)
    found = perfect.results()
    # threshold 0 takes the whole image: Dice there is 2 * 144 / (144 + 1024)
    assert found["mDice"] == pytest.approx((255 + 288 / 1168) / 256, abs=1e-9)
    for name in ("S", "wF", "adaptive F", "IoU", "F"):
        assert found[name] == pytest.approx(1, abs=1e-3), name
    assert found["MAE"] == 0
    assert inverted.results()["MAE"] == 1
    assert inverted.results()["IoU"] == 0


def test_every_map_is_stretched_to_its_own_range() -> None:
    weak = np.array([[0.10, 0.11, 0.12]], np.float32)
    assert stretched(weak).tolist() == [[0, 127, 255]]
    assert stretched(np.full((2, 2), 0.7, np.float32)).tolist() == [[0, 0], [0, 0]]


def test_a_map_of_another_size_is_resized_as_the_published_code_does() -> None:
    # bilinear, corners not aligned: 2 -> 4 samples at -0.25, 0.25, 0.75, 1.25 of the source
    found = resized(np.array([[0, 1]], np.float32), (1, 4))
    np.testing.assert_allclose(found, [[0, 0.25, 0.75, 1]], atol=1e-7)
    same = torch.rand(3, 5).numpy()
    assert resized(same, (3, 5)) is same
    with pytest.raises(DataError, match=r"expected \(H, W\)"):
        resized(np.zeros((2, 2, 2), np.float32), (2, 2))


def test_scores_of_single_images_average_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    protocol = PaperProtocol()
    truth = np.zeros((20, 20), bool)
    truth[4:12, 5:15] = True
    rows = [protocol.add(rng.random((20, 20)).astype(np.float32), truth) for _ in range(4)]
    found = protocol.results()
    for name in ("mDice", "mIoU", "S", "wF", "adaptive F", "E", "MAE", "IoU"):
        assert found[name] == pytest.approx(np.mean([row[name] for row in rows]), abs=1e-9), name
    assert np.isnan(PaperProtocol().results()["mDice"])
