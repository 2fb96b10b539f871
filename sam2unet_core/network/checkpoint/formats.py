"""Reads weights files, recognises and describes their formats, and converts their keys to ours.

No code in a file is ever executed: pickles are read with `weights_only`.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sam2unet_core.errors import ConfigError, TaskError, WeightsError
from sam2unet_core.files import file_sha256
from sam2unet_core.network.keys import ENCODER, is_trunk_key, our_key, trunk_hash
from sam2unet_core.network.variants import VARIANTS, Variant, find_variant
from sam2unet_core.task import Task

Format = Literal["sam2", "authors", "delta", "full", "state_dict", "training"]
"""`sam2`: SAM2's or SAM2.1's official file, of which only the trunk is read. `authors`: SAM2-UNet
as first published. `delta`, `full`: ours, in safetensors. `state_dict`: a plain state dict, such as
MONAI's models/model.pt. `training`: our training checkpoint."""

DELTA = "sam2unet-delta/1"
FULL = "sam2unet-full/1"
UNUSED = "up4."
"""Prefix of a decoder step in the authors' files that their network never calls."""

_SAM2_TRUNK = "image_encoder.trunk."
_WRAPPERS = ("network", "model", "state_dict")
_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Checkpoint:
    """The content of a weights file.

    Attributes:
        format: the format of the file.
        tensors: weights under our keys; floats are float32, except large matrices (`matrices`).
        variant: the network's variant; None if the weights fit none.
        num_classes: output channels; None if the file has no decoder.
        trunk_sha256: hash of the trunk that the file holds or needs, if it is stored in the file.
        task: the task the weights were trained for, if it is stored in the file.
    """

    path: Path
    format: Format
    tensors: dict[str, Tensor]
    variant: Variant | None
    num_classes: int | None
    trunk_sha256: str | None = None
    task: Task | None = None

    @property
    def has_trunk(self) -> bool:
        """Whether the file holds weights of the trunk."""
        return any(is_trunk_key(key) for key in self.tensors)

    @property
    def has_decoder(self) -> bool:
        """Whether the file holds weights of the decoder."""
        return any(not key.startswith(ENCODER) for key in self.tensors)


def read_checkpoint(path: Path | str, *, matrices: torch.dtype = torch.float32) -> Checkpoint:
    """Read a weights file of any format.

    Args:
        path: the file.
        matrices: type of large matrices; see `read_file`.

    Raises:
        WeightsError: the file cannot be read, is of no known format, contradicts itself, or holds
            values that are not finite.
    """
    raw = read_file(path, matrices=matrices)
    kind, tensors = _recognise(raw)
    tensors = {key: _plain(raw.path, key, value, matrices) for key, value in tensors.items()}
    inferred = infer_variant(tensors)
    declared = _declared_variant(raw)
    if declared is not None and not _fits(declared, tensors):
        raise WeightsError(
            f"{raw.path}: its weights are not those of the network {declared.name!r}, as it says; "
            "download the file again"
        )
    head = tensors.get("head.weight")
    return Checkpoint(
        path=raw.path,
        format=kind,
        tensors=tensors,
        variant=declared or inferred,
        num_classes=None if head is None or head.dim() == 0 else head.shape[0],
        trunk_sha256=_text(raw, "trunk_sha256"),
        task=_declared_task(raw),
    )


def task_in_weights(path: Path | str) -> Task | None:
    """Return the task stored in a weights file, without reading the weights.

    Raises:
        WeightsError: the file cannot be read.
    """
    return _declared_task(read_metadata(path))


def infer_variant(tensors: Mapping[str, Tensor]) -> Variant | None:
    """Return the variant in `VARIANTS` that weights under our keys belong to, or None."""
    return next((row for row in VARIANTS.values() if _fits(row, tensors)), None)


def _fits(row: Variant, tensors: Mapping[str, Tensor]) -> bool:
    """Return whether the weights have the depth, channels and decoder width of `row`."""
    layout = _layout(tensors)
    rfb = tensors.get("rfb1.conv_res.conv.weight")
    background = tensors.get("encoder.pos_embed")
    return (
        layout == (row.embed_dim, row.stages)
        and (rfb is None or rfb.shape[0] == row.width)
        and (background is None or tuple(background.shape[2:]) == row.pos_background)
    )


def _layout(tensors: Mapping[str, Tensor]) -> tuple[int, tuple[int, ...]] | None:
    """Return the channels of the first stage and the blocks per stage, from the weights' shapes."""
    widths: list[int] = []  # input channels of each block
    while True:
        block = f"encoder.blocks.{len(widths)}."
        adapter, norm = (
            tensors.get(block + "prompt_learn.0.weight"),
            tensors.get(block + "block.norm1.weight"),
        )
        found = adapter if adapter is not None else norm
        if found is None or found.dim() == 0:
            break
        widths.append(found.shape[-1])
    if not widths:
        return None
    rfb = tensors.get("rfb4.conv_res.conv.weight")
    proj = tensors.get(f"encoder.blocks.{len(widths) - 1}.block.attn.proj.weight")
    last = rfb.shape[1] if rfb is not None else proj.shape[0] if proj is not None else widths[-1]
    out = [*widths[1:], last]  # output channels of each block
    return widths[0], tuple(out.count(widths[0] * 2**stage) for stage in range(4))


def _recognise(raw: RawFile) -> tuple[Format, dict[str, Any]]:
    outer = raw.content
    wrapper = next((k for k in _WRAPPERS if isinstance(outer.get(k), dict)), None)
    state = outer[wrapper] if wrapper else outer
    state = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    trunk = {k.removeprefix(_SAM2_TRUNK): v for k, v in state.items() if k.startswith(_SAM2_TRUNK)}
    if "patch_embed.proj.weight" in state and "pos_embed_window" in state:
        trunk = state
    if trunk:
        return "sam2", {our_key(key): value for key, value in trunk.items()}
    if "head.weight" not in state and f"{ENCODER}patch_embed.proj.weight" not in state:
        keys = ", ".join(list(map(str, outer))[:5]) or "nothing"
        raise WeightsError(
            f"{raw.path}: holds no weights of SAM2 or SAM2-UNet but {keys} ...; give an official "
            "SAM2 file, a SAM2-UNet file or one that sam2unet wrote"
        )
    used = {key: value for key, value in state.items() if not key.startswith(UNUSED)}
    ours: dict[str, Format] = {DELTA: "delta", FULL: "full"}
    if raw.metadata.get("format") in ours:
        return ours[raw.metadata["format"]], used
    if wrapper == "network":
        return "training", used
    return ("authors" if len(used) < len(state) else "state_dict"), used


def _plain(path: Path, key: str, tensor: Tensor, matrices: torch.dtype) -> Tensor:
    """Return a weight in the type for its shape; raise if it is not dense, real and finite."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex():
        raise WeightsError(
            f"{path}: {key} is {tensor.dtype} {tensor.layout}, expected plain floats"
        )
    if not tensor.is_floating_point():
        return tensor
    tensor = tensor.to(type_of(tensor, matrices))
    if not torch.isfinite(tensor).all():
        count = int((~torch.isfinite(tensor)).sum())
        raise WeightsError(
            f"{path}: {count} values of {key} are not finite, so the training diverged; give an "
            "earlier checkpoint"
        )
    return tensor


def _text(raw: RawFile, key: str) -> str | None:
    value = raw.metadata.get(key) or raw.content.get(key)
    return value if isinstance(value, str) and value else None


def _declared_variant(raw: RawFile) -> Variant | None:
    row, name = _text(raw, "variant_row"), _text(raw, "variant")
    try:
        if row is not None:
            return Variant.from_dict(json.loads(row))
        return find_variant(name) if name is not None else None
    except (ConfigError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{raw.path}: no network can be built: {error}") from error


def _declared_task(raw: RawFile) -> Task | None:
    text = _text(raw, "task")
    if text is None:
        return None
    try:
        return Task.from_dict(json.loads(text), source=f"{raw.path} (task)")
    except (TaskError, ValueError) as error:
        raise WeightsError(f"{raw.path}: its task cannot be read: {error}") from error


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


@dataclass(frozen=True)
class WeightsInfo:
    """Description of a weights file.

    Attributes:
        format: the format of the file.
        variant: name of the network's variant; None if the weights fit none.
        num_classes: output channels; None for a trunk alone.
        trunk_sha256: hash of the trunk that the file holds or needs; None if unknown.
        has_trunk: whether the file holds the trunk.
        has_decoder: whether the file holds adapters and decoder.
        task: the task it was trained for, if it is stored in the file.
        parameters: number of values of this network in the file, including buffers.
        sha256: hash of the file.
        size: bytes of the file.
    """

    path: Path
    format: Format
    variant: str | None
    num_classes: int | None
    trunk_sha256: str | None
    has_trunk: bool
    has_decoder: bool
    task: Task | None
    parameters: int
    sha256: str
    size: int

    @property
    def is_delta(self) -> bool:
        """Whether the file needs a separate trunk."""
        return not self.has_trunk


def read_info(path: Path | str) -> WeightsInfo:
    """Describe a weights file of any format.

    Raises:
        WeightsError: the file cannot be read or is of no known format.
    """
    checkpoint = read_checkpoint(path)
    has_trunk = checkpoint.has_trunk
    return WeightsInfo(
        path=checkpoint.path,
        format=checkpoint.format,
        variant=checkpoint.variant.name if checkpoint.variant else None,
        num_classes=checkpoint.num_classes,
        trunk_sha256=trunk_hash(checkpoint.tensors) if has_trunk else checkpoint.trunk_sha256,
        has_trunk=has_trunk,
        has_decoder=checkpoint.has_decoder,
        task=checkpoint.task,
        parameters=sum(tensor.numel() for tensor in checkpoint.tensors.values()),
        sha256=file_sha256(checkpoint.path),
        size=checkpoint.path.stat().st_size,
    )
