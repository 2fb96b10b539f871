"""Copy-paste augmentation: lesions of one training frame pasted into another."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from monai.transforms import Randomizable, Transform
from numpy.typing import NDArray

from sam2unet_core.monai_parts.frames import Item, LoadFramed
from sam2unet_core.task import Task


class RandPastedLesion(Randomizable, Transform):
    """Paste the labelled lesion of a random donor frame into the frame, with soft edges.

    Belongs between `LoadFramed` and `Prepared`. The lesion is rotated and mirrored at random,
    resized by `scale`, and its colour is shifted towards the frame's, so that the network does not
    learn to detect pasted patches. After Ghiasi et al., "Simple Copy-Paste is a Strong Data
    Augmentation Method for Instance Segmentation", CVPR 2021, which does not match colours.

    Args:
        items: `image` and `label` paths of the donor frames.
        task: what the labels mean.
        scale: range of the factor on the lesion's size relative to the frame's shorter side.
        match: range of the fraction of the colour difference that is removed.
    """

    def __init__(
        self,
        items: Sequence[Item],
        task: Task,
        scale: tuple[float, float] = (0.6, 1.4),
        match: tuple[float, float] = (0.3, 1.0),
    ) -> None:
        self.items = items
        self.load = LoadFramed(task)
        self.scale = (float(scale[0]), float(scale[1]))
        self.match = (float(match[0]), float(match[1]))

    def __call__(self, data: Item) -> Item:
        """Return a copy of `data` with the lesion in `image` `(3, H, W)` and `label` `(K, H, W)`.

        The lesion's labels replace those of the frame. Nothing is pasted onto black borders. If the
        donor frame has no label or an empty one, `data` is returned unchanged.
        """
        donor = self.load(self.items[int(self.R.randint(len(self.items)))])
        if "label" not in donor:
            return data
        pixels, labels = _channels_last(donor["image"]), _channels_last(donor["label"])
        cut = _around(np.asarray(labels.any(-1)))
        if cut is None:
            return data
        image, label = _channels_last(data["image"]).copy(), _channels_last(data["label"]).copy()
        factor = self.R.uniform(*self.scale) * min(image.shape[:2]) / min(pixels.shape[:2])
        patch, patch_label = self._turned(pixels[cut], labels[cut], factor)
        here, there = self._place(patch.shape[:2], image.shape[:2])
        patch, patch_label = patch[there], patch_label[there]
        seen = _seen(image)[here]
        lesion = patch_label.any(-1) & seen
        if lesion.any():
            old = image[here].astype(np.float32)
            shift = (old - patch).reshape(-1, 3).mean(0) * self.R.uniform(*self.match)
            alpha = (_soft(lesion) * seen)[..., None]
            mixed = alpha * (patch + shift) + (1 - alpha) * old
            image[here] = mixed.clip(0, 255).astype(np.uint8)
            label[here] = np.where(lesion[..., None], patch_label, label[here])
        return data | {"image": _channels_first(image), "label": _channels_first(label)}

    def _turned(
        self, pixels: NDArray[np.uint8], labels: NDArray[np.uint8], factor: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the crop `(h, w, C)` and its labels, both resized, mirrored and rotated."""
        size = [max(2, round(side * factor)) for side in pixels.shape[1::-1]]
        mirrored, quarters = self.R.random() < 0.5, int(self.R.randint(4))
        turned: list[NDArray[np.uint8]] = []
        for array, how in ((pixels, cv2.INTER_AREA), (labels, cv2.INTER_NEAREST)):
            resized = cv2.resize(array, size, interpolation=how).reshape(size[1], size[0], -1)
            turned.append(
                np.rot90(resized[:, ::-1] if mirrored else resized, quarters).astype(np.uint8)
            )
        return turned[0], turned[1]

    def _place(
        self, patch: tuple[int, ...], frame: tuple[int, ...]
    ) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the slices of frame and patch that overlap; the centre lies within the frame."""
        here, there = [], []
        for length, room in zip(patch, frame, strict=True):
            start = int(self.R.randint(room)) - length // 2
            first, last = max(start, 0), min(start + length, room)
            here.append(slice(first, last))
            there.append(slice(first - start, last - start))
        return (here[0], here[1]), (there[0], there[1])


def _around(mask: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Return the mask's bounding box plus a margin of a fifth of its sides; None if it is empty."""
    if not mask.any():
        return None
    box = []
    for axis, room in ((1, mask.shape[0]), (0, mask.shape[1])):
        places = np.flatnonzero(mask.any(axis=axis))
        first, last = int(places[0]), int(places[-1]) + 1
        margin = (last - first) // 5
        box.append(slice(max(first - margin, 0), min(last + margin, room)))
    return box[0], box[1]


def _seen(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the visible area of an image `(H, W, 3)`: all but black borders."""
    bright = (image.max(-1) > 24).astype(np.uint8)
    return cv2.morphologyEx(bright, cv2.MORPH_CLOSE, np.ones((15, 15), np.uint8)) > 0


def _soft(lesion: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the alpha mask, which falls from 1 inside the lesion to 0 outside."""
    reach = max(1, round(min(lesion.shape) / 12)) | 1  # odd, so that the kernel has a centre
    wide = cv2.dilate(lesion.astype(np.uint8), np.ones((reach, reach), np.uint8))
    return np.asarray(cv2.GaussianBlur(wide.astype(np.float32), (0, 0), reach / 3), np.float32)


def _channels_last(array: torch.Tensor) -> NDArray[np.uint8]:
    return np.asarray(array.permute(1, 2, 0).numpy())


def _channels_first(array: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)
