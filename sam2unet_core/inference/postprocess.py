"""Converts logits to probabilities, and probabilities to masks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sam2unet_core.inference.transforms import restore
from sam2unet_core.task import Task

EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


def to_probabilities(logits: Tensor, task: Task, size: tuple[int, int]) -> Tensor:
    """Convert logits to class probabilities at the size of the frames.

    Args:
        logits: `(N, C, h, w)`; with softmax, channel 0 is the background.
        task: activation and temperature.
        size: (height, width) of the frames in pixels.

    Returns:
        `(N, K, height, width)` float32 from 0 to 1, one channel per foreground class.
    """
    scaled = restore(logits.float() / task.temperature, size)
    if task.activation == "softmax":
        return scaled.softmax(dim=1)[:, 1:]
    return scaled.sigmoid_()


def class_masks(probabilities: NDArray[np.float32], task: Task) -> NDArray[np.bool_]:
    """Threshold each class and drop components that are too small or whose peak is too low.

    Args:
        probabilities: `(K, H, W)`, from 0 to 1.
        task: threshold, minimum area and minimum peak probability of a component.

    Returns:
        `(K, H, W)`; classes may overlap.
    """
    masks = probabilities >= task.threshold
    for mask, found, item in zip(masks, probabilities, task.classes, strict=True):
        if mask.any() and (item.min_area_px > 1 or task.peak_threshold > task.threshold):
            _drop_components(mask, found, peak=task.peak_threshold, least_px=item.min_area_px)
    return masks


def label_map(probabilities: NDArray[np.float32], task: Task) -> NDArray[np.uint8]:
    """Assign each pixel the most probable of the classes in whose mask it lies.

    Args:
        probabilities: `(K, H, W)`, from 0 to 1.
        task: see `class_masks`.

    Returns:
        `(H, W)`: 0 background, k the k-th class.
    """
    masks = class_masks(probabilities, task)
    likeliest = np.where(masks, probabilities, -1.0).argmax(axis=0) + 1
    return np.where(masks.any(axis=0), likeliest, 0).astype(np.uint8)


def _drop_components(
    mask: NDArray[np.bool_], probability: NDArray[np.float32], *, peak: float, least_px: int
) -> None:
    """Clear components of a mask `(H, W)` that are too small or whose peak is too low, in place."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    box = np.s_[y : y + height, x : x + width]
    inside = mask[box]
    count, components, statistics, _ = cv2.connectedComponentsWithStats(
        inside.astype(np.uint8), connectivity=8
    )
    kept = statistics[:, cv2.CC_STAT_AREA] >= least_px
    reached = np.zeros(count, bool)
    reached[components[probability[box] >= peak]] = True
    inside &= (kept & reached)[components]
