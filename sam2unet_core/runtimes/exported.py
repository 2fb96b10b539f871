"""Networks that another library runs: exported once, kept in the cache under a hash."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import nn

from sam2unet_core import __version__
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
    """Let `write` make a file beside `path`, then put it there whole, whoever else does so too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    os.close(handle)
    part = Path(name)
    try:
        write(part)
        part.replace(path)
    except PermissionError:
        if not path.is_file():  # else on Windows another process reads what it made just now
            raise
    finally:
        part.unlink(missing_ok=True)
