"""Inference and evaluation: the Segmenter as a MONAI inferer, and what writes its masks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from monai.transforms import Transform
from torch import Tensor

from sam2unet_core.media.image import overlay, write_image, write_mask, write_probability
from sam2unet_core.postprocess import label_map
from sam2unet_core.segmenter import Segmenter, bundled_weights
from sam2unet_core.task import Task

logger = logging.getLogger(__name__)


class SegmenterInferer(Inferer):
    """Runs frames through the Segmenter, so the bundle and the library give the same masks.

    Args:
        task: what the network's channels mean.
        device: where it runs.
        runtime: one of `sam2unet_core.runtimes.RUNTIMES`.
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


class WriteMasksd(Transform):
    """Write the mask of each frame, and its overlay and probabilities if asked for.

    Files are named as `sam2unet segment` names them: `<name of the image>.mask.png`.

    Args:
        task: gives threshold, classes and colours.
        output_dir: folder for the masks; subfolders follow the images' own.
        overlays: write `.overlay.png`, the frame with the mask's outline.
        probabilities: write `.prob<k>.png`, 16 bit, one a class.
    """

    def __init__(
        self,
        task: Task,
        output_dir: str,
        overlays: bool = False,
        probabilities: bool = False,
    ) -> None:
        self.task = task
        self.output_dir = Path(output_dir)
        self.overlays = overlays
        self.probabilities = probabilities

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Write the files of one frame and return `data` with the label map in `pred`."""
        item = dict(data)
        found = torch.as_tensor(item["pred"]).cpu().numpy()
        labels = label_map(found, self.task)
        stem = self.output_dir / item["name"]
        stem.parent.mkdir(parents=True, exist_ok=True)
        write_mask(Path(f"{stem}.mask.png"), labels, self.task.classes)
        if self.probabilities:
            for value, channel in enumerate(found, start=1):
                write_probability(Path(f"{stem}.prob{value}.png"), channel)
        if self.overlays:
            pixels = torch.as_tensor(item["image"]).permute(1, 2, 0).cpu().numpy()
            write_image(Path(f"{stem}.overlay.png"), overlay(pixels, labels, self.task.classes))
        item["pred"] = torch.from_numpy(labels)[None]
        return item


def choose_weights(bundle_root: str, task: Task, weights: str | None = None) -> str:
    """Return the weights file: the one given, else the bundle's own.

    Raises:
        MissingWeightsError: none was given and the task has none.
    """
    return weights or str(bundled_weights(Path(bundle_root), task))
