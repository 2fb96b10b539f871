"""Networks exported for another library, kept in the cache under a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from torch import nn

from sam2unet_core import __version__
from sam2unet_core.files import written_whole
from sam2unet_core.network.checkpoint import cache_folder


def cached_file(network: nn.Module, *circumstances: object, suffix: str) -> Path:
    """Return where the export of a network is kept: a name that changes with all it depends on.

    Args:
        network: its weights and buffers are hashed.
        circumstances: what else matters, such as size, precision, library and processor.
        suffix: with the dot.
    """
    digest = hashlib.sha256(repr((__version__, type(network).__name__, *circumstances)).encode())
    for name, value in network.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().data)
    folder = cache_folder().parent / "exports"
    return folder / f"{digest.hexdigest()}{suffix}"


def write_once(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file, then put it in its place whole, whoever else does so too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with written_whole(path, suffix=path.suffix) as part:
            write(part)
    except PermissionError:
        if not path.is_file():  # else on Windows another process reads what it made just now
            raise
