"""The interface of all runtimes, and the cache of networks exported for other libraries."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from sam2unet_core import __version__
from sam2unet_core.files import written_whole
from sam2unet_core.network.checkpoint import cache_folder


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


def cached_file(network: nn.Module, *circumstances: object, suffix: str) -> Path:
    """Return the path of a network's export; its name is a hash of everything it depends on.

    Args:
        network: the network, whose weights and buffers are hashed.
        circumstances: other dependencies, such as size, precision, library and processor.
        suffix: file suffix with the dot.
    """
    digest = hashlib.sha256(repr((__version__, type(network).__name__, *circumstances)).encode())
    for name, value in network.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().data)
    folder = cache_folder().parent / "exports"
    return folder / f"{digest.hexdigest()}{suffix}"


def write_once(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file and move it to its place atomically; other processes may do the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with written_whole(path, suffix=path.suffix) as part:
            write(part)
    except PermissionError:
        if not path.is_file():  # on Windows, another process may have just written and opened it
            raise
