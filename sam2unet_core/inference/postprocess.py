"""Logits to probabilities, probabilities to masks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sam2unet_core.inference.transforms import restore
from sam2unet_core.task import Task

EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


def to_probabilities(logits: Tensor, task: Task, size: tuple[int, int]) -> Tensor:
    """Turn logits into class probabilities of frames of a size.

    Args:
        logits: `(N, C, h, w)`; with softmax channel 0 is the background.
        task: gives the activation and the temperature.
        size: (height, width) of the frames in pixels.

    Returns:
        `(N, K, height, width)` float32 in 0 to 1, one channel a foreground class.
    """
    scaled = restore(logits.float() / task.temperature, size)
    if task.activation == "softmax":
        return scaled.softmax(dim=1)[:, 1:]
    return scaled.sigmoid_()


def class_masks(probabilities: NDArray[np.float32], task: Task) -> NDArray[np.bool_]:
    """Threshold each class and drop components that are too small or too doubtful.

    Args:
        probabilities: `(K, H, W)` in 0 to 1.
        task: gives the threshold, the peak that a component has to reach and its least area.

    Returns:
        `(K, H, W)`; classes may overlap.
    """
    masks = probabilities >= task.threshold
    for mask, found, item in zip(masks, probabilities, task.classes, strict=True):
        if mask.any() and (item.min_area_px > 1 or task.peak_threshold > task.threshold):
            _drop_components(mask, found, peak=task.peak_threshold, least_px=item.min_area_px)
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


def _drop_components(
    mask: NDArray[np.bool_], probability: NDArray[np.float32], *, peak: float, least_px: int
) -> None:
    """Clear the components of a mask `(H, W)` that are smaller or whose peak is lower, in place."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    box = np.s_[y : y + height, x : x + width]  # all there is lies in it
    inside = mask[box]
    count, components, statistics, _ = cv2.connectedComponentsWithStats(
        inside.astype(np.uint8), connectivity=8
    )
    kept = statistics[:, cv2.CC_STAT_AREA] >= least_px
    reached = np.zeros(count, bool)
    reached[components[probability[box] >= peak]] = True
    inside &= (kept & reached)[components]
