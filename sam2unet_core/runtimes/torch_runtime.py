"""PyTorch in float32: the yardstick that faster runtimes are measured against."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2unet_core.errors import ConfigError, WeightsError
from sam2unet_core.postprocess import to_probabilities
from sam2unet_core.task import Task
from sam2unet_core.transforms import prepare, restore


class TorchRuntime:
    """Runs a network on frames with PyTorch, in float32.

    Args:
        network: tensor `(N, 3, h, w)` to logits `(N, C, h, w)`; put in evaluation mode.
        task: gives image size, activation and temperature.
        device: where it runs.
        batch_size: frames that go through the network together.
    """

    name = "exact"
    precision = "float32"

    def __init__(
        self, network: torch.nn.Module, task: Task, *, device: torch.device, batch_size: int = 4
    ) -> None:
        self.network = network.eval().to(device)
        self.task = task
        self.device = device
        self.batch_size = batch_size

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
        result = np.empty((count, self.task.num_classes, height, width), np.float32)
        for start in range(0, count, self.batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(frames[start : start + self.batch_size]))
            result[start : start + len(batch)] = self._batch(batch.permute(0, 3, 1, 2)).cpu()
        if not np.isfinite(result).all():  # compared with a threshold it would read as no finding
            raise WeightsError("the network's output is not a number; its weights are damaged")
        return result

    @torch.inference_mode()
    def _batch(self, frames: Tensor) -> Tensor:
        network: Callable[[Tensor], Tensor] = self.network
        logits = network(prepare(frames.to(self.device), self.task.image_size))
        size = (int(frames.shape[-2]), int(frames.shape[-1]))
        return to_probabilities(restore(logits, size), self.task)


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; `auto` takes CUDA, else Apple's MPS, else the CPU.

    Raises:
        ConfigError: this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"device {name!r}: not a device; use auto, cpu, cuda, cuda:N or mps"
        ) from error
    cuda_missing = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    mps_missing = device.type == "mps" and not torch.backends.mps.is_available()
    if cuda_missing or mps_missing:
        raise ConfigError(f"device {name!r}: this machine has none; use auto or cpu")
    return device
