"""The interface of all runtimes: from images to logits."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Runtime(ABC):
    """Runs a network on images.

    Preprocessing and postprocessing are the same for all runtimes; only the network's arithmetic
    differs.

    Attributes:
        name: one of `sam2unet_core.inference.runtimes.RUNTIMES`.
        precision: the type that it computes in, such as `float32`, as recorded in outputs.
        device: where images are prepared.
        shares_cores: whether several threads can call it in parallel, each on its own cores.
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
