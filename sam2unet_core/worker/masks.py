"""Turns probabilities into masks as a request asks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.inference.postprocess import EIGHT_NEIGHBOURS, class_masks
from sam2unet_core.task import Task
from sam2unet_core.worker.fields import Adjustment


def adjusted(task: Task, adjustment: Adjustment) -> Task:
    """Return the task with the threshold and the smallest areas that are asked for."""
    classes = task.classes
    if adjustment.min_area_px is not None:
        classes = tuple(replace(c, min_area_px=adjustment.min_area_px) for c in classes)
    threshold = task.threshold if adjustment.threshold is None else adjustment.threshold
    return replace(task.with_threshold(threshold), classes=classes)


def masks_of(
    probabilities: NDArray[np.float32], task: Task, adjustment: Adjustment
) -> NDArray[np.uint8]:
    """Return the masks of one frame: smoothed, thresholded, small ones dropped, largest kept.

    Args:
        probabilities: `(K, H, W)` in 0 to 1.
        task: as `adjusted` returned it.
        adjustment: what else is asked for.

    Returns:
        `(K, H, W)` of 0 and 1; classes may overlap.
    """
    if adjustment.smoothing_px > 0:
        from scipy import ndimage  # noqa: PLC0415 - seldom asked for, a fifth of a second to import

        sigma = (0.0, adjustment.smoothing_px, adjustment.smoothing_px)
        probabilities = ndimage.gaussian_filter(probabilities, sigma, mode="nearest")
    masks = class_masks(probabilities, task)
    if adjustment.keep_largest:
        masks = np.stack([_largest(mask) for mask in masks])
    return masks.astype(np.uint8)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest component of `(H, W)`; of equal ones the first."""
    from scipy import ndimage  # noqa: PLC0415 - as above

    components, count = ndimage.label(mask, EIGHT_NEIGHBOURS)
    if count < 2:
        return mask
    areas = np.bincount(components.ravel())
    areas[0] = 0
    largest: NDArray[np.bool_] = components == areas.argmax()
    return largest
