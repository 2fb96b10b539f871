"""Converts probabilities to masks with the adjustments of a request."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.inference.transforms import EIGHT_NEIGHBOURS, class_masks
from sam2unet_core.task import Task
from sam2unet_core.worker.fields import Adjustment


def adjusted(task: Task, adjustment: Adjustment) -> Task:
    """Return the task with the requested threshold and minimum area."""
    classes = task.classes
    if adjustment.min_area_px is not None:
        classes = tuple(replace(c, min_area_px=adjustment.min_area_px) for c in classes)
    threshold = task.threshold if adjustment.threshold is None else adjustment.threshold
    return replace(task.with_threshold(threshold), classes=classes)


def masks_of(
    probabilities: NDArray[np.float32], task: Task, adjustment: Adjustment
) -> NDArray[np.uint8]:
    """Return the masks of one frame: smooth, threshold, drop small components, keep the largest.

    Args:
        probabilities: `(K, H, W)`, from 0 to 1.
        task: the task from `adjusted`.
        adjustment: the other requested changes.

    Returns:
        `(K, H, W)` of 0 and 1; classes may overlap.
    """
    if adjustment.smoothing_px > 0:
        from scipy import ndimage  # noqa: PLC0415 - seldom needed, takes 0.2 s to import

        sigma = (0.0, adjustment.smoothing_px, adjustment.smoothing_px)
        probabilities = ndimage.gaussian_filter(probabilities, sigma, mode="nearest")
    masks = class_masks(probabilities, task)
    if adjustment.keep_largest:
        masks = np.stack([_largest(mask) for mask in masks])
    return masks.astype(np.uint8)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest component of `(H, W)`; if several are equal, the first."""
    from scipy import ndimage  # noqa: PLC0415 - as above

    components, count = ndimage.label(mask, EIGHT_NEIGHBOURS)
    if count < 2:
        return mask
    areas = np.bincount(components.ravel())
    areas[0] = 0
    largest: NDArray[np.bool_] = components == areas.argmax()
    return largest
