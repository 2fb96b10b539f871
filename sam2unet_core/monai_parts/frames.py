"""MONAI transforms that load and prepare frames and masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform

from sam2unet_core.data import Sample, read_dataset, read_sample
from sam2unet_core.inference.transforms import (
    class_masks,
    prepare,
    prepare_target,
    to_probabilities,
)
from sam2unet_core.media.image import read_mask
from sam2unet_core.task import Task

Item = dict[str, Any]


def as_items(samples: Sequence[Sample]) -> list[Item]:
    """Return samples as MONAI's list of dictionaries: `image`, `label` if any, and `name`.

    Outputs are named after `name`, the image's path below the dataset with its suffix.
    """
    items: list[Item] = []
    for sample in samples:
        item: Item = {
            "image": str(sample.image),
            "name": f"{sample.name}{sample.image.suffix}",
        }
        if sample.mask is not None:
            item["label"] = str(sample.mask)
        items.append(item)
    return items


class LoadFramed(Transform):
    """Read `image` to `(3, H, W)` uint8 RGB and `label`, if any, to `(K, H, W)` uint8, 0 or 1.

    The pixels are those that the network gets in `sam2unet segment`; see `read_sample`.
    """

    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self, data: Item) -> Item:
        """Return a copy of `data` with pixels in place of paths."""
        item = dict(data)
        pixels = read_sample(Path(item["image"]), self.task)
        item["image"] = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        if "label" in item:
            labels = read_mask(Path(item["label"]), self.task.classes)
            values = np.array([c.value for c in self.task.classes], np.uint8)
            item["label"] = torch.from_numpy((labels == values[:, None, None]).astype(np.uint8))
        return item


class Prepared(Transform):
    """Convert `image` to the network's input; see `prepare`.

    Args:
        task: determines the image size.
        with_label: also resize `label`, to soft labels `(K, h, w)` float32.
    """

    def __init__(self, task: Task, with_label: bool = False) -> None:
        self.size = task.image_size
        self.with_label = with_label

    def __call__(self, data: Item) -> Item:
        """Return a copy of `data` with `image` `(3, h, w)` float32, normalised."""
        item = dict(data)
        item["image"] = prepare(item["image"][None], self.size)[0]
        if self.with_label:
            item["label"] = prepare_target(item["label"][None], self.size)[0]
        return item


class ToMasksd(Transform):
    """Turn `pred`, logits `(C, h, w)`, into masks `(K, H, W)` float32 at the label's size."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self, data: Item) -> Item:
        """Return a copy of `data` with masks in `pred` and a float32 `label`."""
        item = dict(data)
        height, width = item["label"].shape[-2:]
        logits = torch.as_tensor(item["pred"])[None]
        found = to_probabilities(logits, self.task, (int(height), int(width)))[0].cpu().numpy()
        item["pred"] = torch.from_numpy(class_masks(found, self.task).astype(np.float32))
        item["label"] = torch.as_tensor(item["label"]).float().cpu()
        return item


def image_samples(dataset_dir: str) -> list[Sample]:
    """Return the images of a folder, or of the `images/` in it.

    Raises:
        DataError: there are none.
    """
    return read_dataset(Path(dataset_dir), masks=False)
