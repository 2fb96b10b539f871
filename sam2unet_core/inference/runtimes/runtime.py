"""The interface of all runtimes: images in, logits out."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Runtime(ABC):
    """Runs a network on images.

    Images are made of frames, and probabilities of logits, by the same code whatever runs the
    network: runtimes differ in its arithmetic alone.

    Attributes:
        name: one of `sam2unet_core.inference.runtimes.RUNTIMES`.
        precision: type of the network's numbers, such as `float32`; what outputs record.
        device: where images are prepared.
        shares_cores: whether several threads may call it at the same time, each computing on
            cores of its own.
    """

    name: str
    precision: str = "float32"
    device: torch.device = torch.device("cpu")
    shares_cores: bool = False

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """Return `(N, C, h, w)` logits of `(N, 3, h, w)` float32 images, normalised, on `device`.

        The logits may be of any floating-point type.
        """
