"""What every runtime has in common: frames in, probabilities out, in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2unet_core.errors import WeightsError
from sam2unet_core.postprocess import to_probabilities
from sam2unet_core.task import Task
from sam2unet_core.transforms import prepare


class Runtime(ABC):
    """Runs a network on frames.

    Frames are resized, normalised and brought back in float32 by the same code whatever runs the
    network, so runtimes differ in its arithmetic alone.

    Args:
        task: gives image size, activation and temperature.
        device: where frames are prepared.
        batch_size: frames that go through the network together, each with its mirror image where
            the task averages over both.

    Attributes:
        name: one of `sam2unet_core.runtimes.RUNTIMES` but `auto`.
        precision: type of the network's numbers, such as `float32`; what outputs record.
        mirrors_along: whether a frame and its mirror image go through the network together.
    """

    name: str
    precision: str

    def __init__(self, task: Task, *, device: torch.device, batch_size: int = 4) -> None:
        self.task = task
        self.device = device
        self.batch_size = batch_size
        self.mirrors_along = True

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """Return `(N, C, h, w)` logits of `(N, 3, h, w)` float32 images, normalised, on `device`.

        The logits may be of any floating-point type.
        """

    def probabilities(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return class probabilities at the frames' own size.

        Args:
            frames: `(N, H, W, 3)` uint8 RGB.

        Returns:
            `(N, K, H, W)` float32 in 0 to 1.

        Raises:
            WeightsError: the output is not finite.
        """
        count, height, width, _ = frames.shape
        if 0 < count <= self.batch_size:
            return self._batch(frames)
        result = np.empty((count, self.task.num_classes, height, width), np.float32)
        for start in range(0, count, self.batch_size):
            part = slice(start, start + self.batch_size)
            result[part] = self._batch(frames[part])
        return result

    @torch.inference_mode()
    def _batch(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        size = (int(frames.shape[1]), int(frames.shape[2]))
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        images = prepare(pixels.to(self.device), self.task.image_size)
        if not self.task.flip_average:
            return self._found(self.logits(images), size).cpu().numpy()
        if self.mirrors_along:  # which takes up to a third less time than one after the other
            plain, mirrored = self.logits(torch.cat([images, images.flip(-1)])).chunk(2)
        else:
            plain, mirrored = self.logits(images), self.logits(images.flip(-1))
        found = self._found(plain, size)
        return found.add_(self._found(mirrored.flip(-1), size)).div_(2).cpu().numpy()

    def _found(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        # What is not a number, compared with a threshold, would read as no finding. A sum is finite
        # only where all of it is.
        if not logits.float().sum().isfinite():
            cause = "its weights are damaged"
            if self.precision == "float16":
                cause += ", or its numbers too large for 16 bits: try the runtime `exact`"
            raise WeightsError(f"the network's output is not a number; {cause}")
        return to_probabilities(logits, self.task, size)
