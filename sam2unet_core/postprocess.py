"""Logits to probabilities, probabilities to masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from sam2unet_core.task import Task

EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


def to_probabilities(logits: Tensor, task: Task) -> Tensor:
    """Turn logits into class probabilities.

    Args:
        logits: `(N, C, H, W)`; with softmax channel 0 is the background.
        task: gives the activation and the temperature.

    Returns:
        `(N, K, H, W)` in 0 to 1, one channel a foreground class.
    """
    scaled = logits.float() / task.temperature
    if task.activation == "softmax":
        return scaled.softmax(dim=1)[:, 1:]
    return scaled.sigmoid()


def class_masks(probabilities: NDArray[np.float32], task: Task) -> NDArray[np.bool_]:
    """Threshold each class and drop components smaller than its `min_area_px`.

    Args:
        probabilities: `(K, H, W)` in 0 to 1.
        task: gives the threshold and the smallest areas.

    Returns:
        `(K, H, W)`; classes may overlap.
    """
    masks = probabilities >= task.threshold
    for index, item in enumerate(task.classes):
        if item.min_area_px > 1:
            components, _ = ndimage.label(masks[index], EIGHT_NEIGHBOURS)
            areas = np.bincount(components.ravel())
            masks[index] &= (areas >= item.min_area_px)[components]
    return masks


def label_map(probabilities: NDArray[np.float32], task: Task) -> NDArray[np.uint8]:
    """Give each pixel the likeliest of the classes that reach the threshold there.

    Args:
        probabilities: `(K, H, W)` in 0 to 1.
        task: gives the threshold and the smallest areas.

    Returns:
        `(H, W)`: 0 background, k the k-th class.
    """
    masks = class_masks(probabilities, task)
    likeliest = np.where(masks, probabilities, -1.0).argmax(axis=0) + 1
    return np.where(masks.any(axis=0), likeliest, 0).astype(np.uint8)
