"""Reads safetensors and PyTorch files: tensors and metadata.

No code in a file is ever executed: pickles are read with `weights_only`.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from sam2unet_core.errors import WeightsError

_TORCH_ERRORS = (
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OSError,
)
"""What `torch.load` raises on damaged files."""
_AGAIN = "download the file again"
_AT_ONCE = 64 * 2**20
"""Bytes of a file that are mapped into memory at once."""
_LARGE = 2**14
"""Matrices with at least this many elements are large."""


@dataclass(frozen=True)
class RawFile:
    """The content of a file.

    Attributes:
        content: the tensors by name, or the pickled nested dictionary.
        metadata: text by name; empty unless the file is safetensors.
    """

    path: Path
    content: dict[str, Any]
    metadata: dict[str, str]


def read_file(path: Path | str, *, matrices: torch.dtype = torch.float32) -> RawFile:
    """Read a safetensors or PyTorch file.

    Args:
        path: the file.
        matrices: type to convert large matrices of a safetensors file to while reading. With a
            16-bit type, memory never holds the whole file.

    Raises:
        WeightsError: the file does not exist, is damaged, is of another format, or is a pickle
            that would run code.
    """
    path = Path(path)
    start = _read_start(path)
    if _is_safetensors(start):
        return _read_safetensors(path, matrices)
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return RawFile(path, _read_torch(path), {})
    raise WeightsError(f"{path}: {_describe(start)}")


def read_metadata(path: Path | str) -> RawFile:
    """Read a file's metadata; of a safetensors file, read no weights.

    Raises:
        WeightsError: as `read_file`.
    """
    path = Path(path)
    if not _is_safetensors(_read_start(path)):
        return read_file(path)
    try:
        with safe_open(path, framework="pt") as opened:
            return RawFile(path, {}, dict(opened.metadata() or {}))
    except (SafetensorError, *_TORCH_ERRORS) as error:
        message = f"{path}: the safetensors file is cut off or damaged ({error}); {_AGAIN}"
        raise WeightsError(message) from error


def type_of(tensor: torch.Tensor, matrices: torch.dtype) -> torch.dtype:
    """Return the type to read a tensor as: `matrices` for large matrices, else float32."""
    if not tensor.is_floating_point():
        return tensor.dtype
    return matrices if tensor.ndim == 2 and tensor.numel() >= _LARGE else torch.float32


def _read_start(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(1024)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such weights file; check the path") from error
    except IsADirectoryError as error:
        raise WeightsError(f"{path}: is a folder; give the weights file in it") from error
    except OSError as error:
        if path.is_dir():  # Windows says "permission denied"
            raise WeightsError(f"{path}: is a folder; give the weights file in it") from error
        raise WeightsError(f"{path}: cannot be read ({error}); check its permissions") from error


def _is_safetensors(start: bytes) -> bool:
    """Safetensors starts with the header's length (8 bytes, little endian) and a JSON object."""
    return len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 32


def _describe(start: bytes) -> str:
    if not start:
        return f"is empty; {_AGAIN}"
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        return f"is a web page, not weights; the download was probably refused: {_AGAIN}"
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights themselves; run `git lfs pull`"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        return "is a text file, not weights; give a .pt, .pth or .safetensors file"
    return "is neither a safetensors nor a PyTorch file; give a .pt, .pth or .safetensors file"


def _read_safetensors(path: Path, matrices: torch.dtype) -> RawFile:
    tensors: dict[str, Any] = {}
    try:
        with safe_open(path, framework="pt") as opened:
            keys = list(opened.keys())
            metadata = dict(opened.metadata() or {})
        while len(tensors) < len(keys):  # reopening the file frees the memory of the last part
            with safe_open(path, framework="pt") as opened:
                read = 0
                for key in keys[len(tensors) :]:
                    tensor = opened.get_tensor(key)
                    tensors[key] = tensor.to(type_of(tensor, matrices), copy=True)
                    read += tensor.nbytes
                    if read > _AT_ONCE:
                        break
        return RawFile(path, tensors, metadata)
    except (SafetensorError, *_TORCH_ERRORS) as error:
        message = f"{path}: the safetensors file is cut off or damaged ({error}); {_AGAIN}"
        raise WeightsError(message) from error


def _read_torch(path: Path) -> dict[str, Any]:
    _refuse_torchscript(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: {_refusal(str(error))}") from error
    except _TORCH_ERRORS as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        message = f"{path}: the PyTorch file is cut off or damaged ({reason}); {_AGAIN}"
        raise WeightsError(message) from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise WeightsError(f"{path}: holds a {kind}, expected a dictionary of weights")
    return content


def _refuse_torchscript(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return  # PyTorch's legacy format, or damaged: torch.load decides
    if any(name.endswith("/constants.pkl") for name in names):
        raise WeightsError(f"{path}: is a TorchScript program; give its weights (models/model.pt)")


def _refusal(error: str) -> str:
    """Return in one line why `weights_only` refused a pickle."""
    wanted = re.search(r"GLOBAL (\S+)", error)
    if wanted is None:
        reason = next((t for t in error.splitlines() if t.strip()), "unknown reason")
        return f"is not a file of plain weights, or it is damaged ({reason}); {_AGAIN}"
    return (
        f"refused: the pickle wants to call {wanted[1]}, which can run any code. If you trust the "
        "source, load the file with your own code and save only its state_dict with torch.save"
    )
