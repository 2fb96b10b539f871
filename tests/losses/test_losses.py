"""The structure loss against numbers worked out by hand and against a loop over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sam2unet_core.errors import DataError
from sam2unet_core.losses import DeepSupervisionLoss, StructureLoss, border_weight


def test_one_pixel_by_hand() -> None:
    # One pixel, m = 1, logit 0, p = 1/2. The 31x31 mean counts the 960 zeros around it:
    # w = 1 + 5 |1/961 - 1| = 1 + 5 * 960/961 = 5761/961.
    # BCE = ln 2. intersection = w/2, w (p + m) = 3w/2,
    # IoU term = 1 - (w/2 + 1) / (3w/2 - w/2 + 1) = 1 - (w/2 + 1) / (w + 1).
    w = 5761 / 961
    expected = math.log(2) + 1 - (w / 2 + 1) / (w + 1)
    one = torch.ones(1, 1, 1, 1)
    assert StructureLoss()(0 * one, one).item() == pytest.approx(expected, rel=1e-6)
    assert border_weight(one).item() == pytest.approx(w, rel=1e-6)


def test_empty_mask_by_hand() -> None:
    # m = 0 everywhere: w = 1. Logit 0, p = 1/2, 4 pixels: BCE = ln 2, intersection 0, sum 2,
    # IoU term = 1 - 1/3.
    zeros = torch.zeros(1, 1, 2, 2)
    assert StructureLoss()(zeros, zeros).item() == pytest.approx(math.log(2) + 2 / 3, rel=1e-6)


def test_two_pixels_by_hand_tell_the_plain_mean_from_the_weighted_one() -> None:
    # m = (1, 0), logits (ln 3, 0), p = (3/4, 1/2). The window covers both pixels for both:
    # mean = 1/961. w1 = 1 + 5 * 960/961, w2 = 1 + 5/961.
    # bce1 = -ln 3/4, bce2 = -ln 1/2. intersection = 3/4 w1, sum = 7/4 w1 + 1/2 w2.
    w1, w2 = 1 + 4800 / 961, 1 + 5 / 961
    bce1, bce2 = -math.log(0.75), -math.log(0.5)
    iou = 1 - (0.75 * w1 + 1) / (1.75 * w1 + 0.5 * w2 - 0.75 * w1 + 1)
    logits = torch.tensor([[[[math.log(3), 0.0]]]])
    target = torch.tensor([[[[1.0, 0.0]]]])
    plain = (bce1 + bce2) / 2 + iou
    weighted = (w1 * bce1 + w2 * bce2) / (w1 + w2) + iou
    assert StructureLoss()(logits, target).item() == pytest.approx(plain, rel=1e-6)
    found = StructureLoss(weighted_bce=True)(logits, target).item()
    assert found == pytest.approx(weighted, rel=1e-6)
    assert abs(plain - weighted) > 0.1


def test_softmax_of_one_pixel_by_hand() -> None:
    # K = 2, logits (0, ln 2, 0): probabilities (1/4, 1/2, 1/4); the pixel is of class 1.
    # Cross-entropy ln 2. Class 1: w = 5761/961, intersection w/2, sum 3w/2. Class 2: w = 1,
    # intersection 0, sum 1/4. IoU terms 1 - (w/2 + 1)/(w + 1) and 1 - 1/(1/4 + 1) = 1/5.
    w = 5761 / 961
    expected = math.log(2) + (1 - (w / 2 + 1) / (w + 1) + 0.2) / 2
    logits = torch.tensor([0.0, math.log(2), 0.0]).view(1, 3, 1, 1)
    target = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    for weighted in (False, True):  # one pixel: its weight cancels
        loss = StructureLoss(activation="softmax", weighted_bce=weighted)
        assert loss(logits, target).item() == pytest.approx(expected, rel=1e-6)


def test_softmax_takes_what_no_class_covers_as_background() -> None:
    logits = torch.tensor([10.0, 0.0]).view(1, 2, 1, 1)
    empty = torch.zeros(1, 1, 1, 1)
    p = 1 / (1 + math.exp(10))
    expected = -math.log(1 - p) + 1 - 1 / (p + 1)
    found = StructureLoss(activation="softmax")(logits, empty).item()
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("weighted", [False, True])
def test_agrees_with_a_loop_over_images_channels_and_pixels(*, weighted: bool) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 3, 37, 41)) * 3
    target = np.zeros((2, 3, 37, 41))
    target[0, 0, 5:20, 8:30] = 1
    target[0, 1, 10:12, 0:41] = 0.4
    target[1, 2, 30:37, 30:41] = 1
    loss = StructureLoss(weighted_bce=weighted)
    found = loss(torch.from_numpy(logits), torch.from_numpy(target)).item()
    assert found == pytest.approx(_by_loops(logits, target, weighted=weighted), rel=1e-5)


def test_gradient_pulls_every_pixel_towards_its_label() -> None:
    logits = torch.zeros(1, 1, 8, 8, requires_grad=True)
    target = torch.zeros(1, 1, 8, 8)
    target[..., 2:5, 2:5] = 1
    StructureLoss()(logits, target).backward()
    assert logits.grad is not None
    assert (logits.grad[target == 1] < 0).all()
    assert (logits.grad[target == 0] > 0).all()


def test_half_precision_logits_under_autocast_give_a_float32_loss() -> None:
    logits = torch.full((1, 1, 64, 64), 12.0, dtype=torch.bfloat16)
    target = torch.ones(1, 1, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = StructureLoss()(logits, target)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(StructureLoss()(logits.float(), target).item(), abs=1e-7)


def test_deep_supervision_adds_the_maps_unweighted() -> None:
    rng = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 1, 9, 9, generator=rng) for _ in range(3)]
    target = (torch.rand(2, 1, 9, 9, generator=rng) > 0.5).float()
    loss = StructureLoss()
    total = sum(loss(each, target).item() for each in maps)
    assert DeepSupervisionLoss(loss)(maps, target).item() == pytest.approx(total, rel=1e-6)
    alone = DeepSupervisionLoss(loss)(maps[0], target).item()
    assert alone == pytest.approx(loss(maps[0], target).item(), rel=1e-6)


def test_a_target_that_would_only_broadcast_is_refused() -> None:
    with pytest.raises(DataError, match=r"sigmoid expects \(2, 1, 8, 8\)"):
        StructureLoss()(torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8))
    with pytest.raises(DataError, match=r"softmax expects \(2, 3, 8, 8\)"):
        StructureLoss(activation="softmax")(torch.zeros(2, 2, 8, 8), torch.zeros(2, 2, 8, 8))
    with pytest.raises(DataError, match=r"expected \(B, C, H, W\)"):
        StructureLoss()(torch.zeros(8, 8), torch.zeros(8, 8))
    with pytest.raises(DataError, match="no map"):
        DeepSupervisionLoss(StructureLoss())([], torch.zeros(1, 1, 8, 8))
    with pytest.raises(DataError, match="expected sigmoid or softmax"):
        StructureLoss(activation="tanh")  # type: ignore[arg-type]


def _by_loops(logits: np.ndarray, target: np.ndarray, *, weighted: bool) -> float:
    entropies, ious = [], []
    for image, mask in zip(logits.reshape(-1, 37, 41), target.reshape(-1, 37, 41), strict=True):
        weight = np.empty_like(mask)
        for y in range(37):
            for x in range(41):
                window = mask[max(0, y - 15) : y + 16, max(0, x - 15) : x + 16]
                weight[y, x] = 1 + 5 * abs(window.sum() / 961 - mask[y, x])
        p = 1 / (1 + np.exp(-image))
        bce = -(mask * np.log(p) + (1 - mask) * np.log(1 - p))
        entropies.append((weight * bce).sum() / weight.sum() if weighted else bce.mean())
        shared, total = (weight * p * mask).sum(), (weight * (p + mask)).sum()
        ious.append(1 - (shared + 1) / (total - shared + 1))
    return float(np.mean(entropies) + np.mean(ious))
