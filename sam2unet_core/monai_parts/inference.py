"""Inference and evaluation: the Segmenter as a MONAI inferer, and a transform that saves masks."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.inferers import Inferer
from monai.transforms import MapTransform
from torch import Tensor

from sam2unet_core.batch.formats import FORMATS, PictureFormat
from sam2unet_core.errors import ConfigError
from sam2unet_core.inference.engine import to_result
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.task import Task
from sam2unet_core.types import Frame

logger = logging.getLogger(__name__)


class SegmenterInferer(Inferer):
    """Runs frames through the Segmenter, so that bundle and library give the same masks.

    Args:
        task: what the network's channels mean.
        device: where the network runs.
        runtime: one of `sam2unet_core.inference.runtimes.RUNTIME_NAMES`.
    """

    def __init__(
        self, task: Task, device: torch.device | str = "cpu", runtime: str = "auto"
    ) -> None:
        self.task = task
        self.runtime = runtime
        self.device = str(device)
        self._network: Any = None
        self._segmenter: Segmenter | None = None

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return probabilities `(N, K, H, W)` float32 of frames `(N, 3, H, W)` uint8."""
        if self._segmenter is None or self._network is not network:
            self._network = network
            self._segmenter = Segmenter(
                self.task, network, device=self.device, runtime=self.runtime
            )
        frames = torch.as_tensor(inputs).permute(0, 2, 3, 1).cpu().numpy()
        return torch.from_numpy(self._segmenter.probabilities(np.ascontiguousarray(frames)))


class WriteResultsd(MapTransform):
    """Save the pictures of a frame's result and replace the probabilities with the label map.

    Files are named as by `sam2unet segment`: `<name of the image>.mask.png`.

    Args:
        keys: keys of the probabilities, `(K, H, W)` float32.
        task: threshold, classes and colours.
        output_dir: folder for the files, with the subfolders of the images.
        formats: any of `png`, `overlay`, `probabilities`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        task: Task,
        output_dir: str,
        formats: Sequence[str] = ("png",),
    ) -> None:
        super().__init__(keys)
        self.task = task
        self.output_dir = Path(output_dir)
        self.formats = [_picture_format(name) for name in formats]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Save the files of one frame; return a copy of `data` with label maps `(1, H, W)`."""
        item = dict(data)
        pixels = torch.as_tensor(item["image"]).permute(1, 2, 0).cpu().numpy()
        stem = self.output_dir / str(item["name"])
        stem.parent.mkdir(parents=True, exist_ok=True)
        for key in self.key_iterator(item):
            found = torch.as_tensor(item[key]).cpu().numpy()
            result = to_result(Frame(pixels, 0, 0, 1), found, self.task)
            for each in self.formats:
                each.write(stem, result, self.task)
            item[key] = torch.from_numpy(result.labels)[None]
        return item


def picture_formats(overlays: bool, probabilities: bool) -> list[str]:
    """Return the names of the formats that the bundle's settings ask for."""
    return ["png", *["overlay"] * overlays, *["probabilities"] * probabilities]


def _picture_format(name: str) -> PictureFormat:
    found = FORMATS.get(name)
    if not isinstance(found, PictureFormat):
        known = [each.name for each in FORMATS.values() if isinstance(each, PictureFormat)]
        raise ConfigError(f"unknown format {name!r}; choose from {', '.join(known)}")
    return found
