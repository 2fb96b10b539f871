"""Resizes frames to the network's input, logits to the size of frames, and makes masks of these.

Both directions sample at pixel centres over the same extent (`align_corners=False`), so `restore`
maps coordinates inversely to `prepare`. Pixels change size and scale only here.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from sam2unet_core.task import Task

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Channel statistics that SAM2's trunk was trained with, for RGB from 0 to 1."""


def prepare(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize and normalise frames for the network.

    The resize is PIL's antialiased bilinear, as in the published code, within one grey level. It
    uses PIL's fixed-point arithmetic for uint8 on a CPU (fewer than 1 in 500 values differ from
    PIL's), otherwise float32, rounded to whole grey levels.

    Args:
        frames: `(N, 3, H, W)` RGB, uint8 or floating point, from 0 to 255.
        size: (height, width) of the network input in pixels.

    Returns:
        `(N, 3, height, width)` float32, normalised by ImageNet's mean and standard deviation.
    """
    fixed_point = frames.dtype == torch.uint8 and frames.device.type == "cpu"
    pixels = frames if fixed_point else frames.float()
    if tuple(pixels.shape[-2:]) != tuple(size):
        pixels = interpolate(pixels, size=size, mode="bilinear", antialias=True)
    pixels = pixels.float().round().clamp(0, 255) / 255
    mean = torch.tensor(IMAGENET_MEAN, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=pixels.device).view(1, 3, 1, 1)
    return (pixels - mean) / std


def prepare_target(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize masks to the network's size as soft labels.

    Args:
        masks: `(N, K, H, W)`, 0 or 1, one channel per class.
        size: (height, width) of the network input in pixels.

    Returns:
        `(N, K, height, width)` float32 from 0 to 1, antialiased bicubic as in the published code.
    """
    target = masks.float()
    if tuple(target.shape[-2:]) != tuple(size):
        target = interpolate(target, size=size, mode="bicubic", antialias=True)
    return target.clamp(0, 1)


def restore(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize logits to the size of the frames, bilinearly.

    Args:
        logits: `(N, C, h, w)` floating point.
        size: (height, width) of the frames in pixels.

    Returns:
        `(N, C, height, width)` float32.
    """
    logits = logits.float()
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    if logits.device.type == "cpu" and not logits.requires_grad:
        return _resized_by_opencv(logits, size)
    return interpolate(logits, size=size, mode="bilinear", align_corners=False)


def _resized_by_opencv(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `(N, C, h, w)` float32 maps bilinearly, in float32.

    On a CPU, PyTorch takes four to eight times as long and differs from float64 by up to 2e-4,
    because it computes positions in float32; OpenCV differs by at most 1e-6.
    """
    height, width = size
    resized = np.empty((*maps.shape[:2], height, width), np.float32)
    for place in np.ndindex(*maps.shape[:2]):
        one = maps[place].contiguous().numpy()
        cv2.resize(one, (width, height), dst=resized[place], interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(resized)


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
