"""Saves networks as safetensors: the whole network, or a delta without the frozen trunk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from sam2unet_core.errors import WeightsError
from sam2unet_core.files import write_bytes
from sam2unet_core.network.checkpoint.formats import DELTA, FULL, Checkpoint, read_checkpoint
from sam2unet_core.network.checkpoint.loading import read_trunk
from sam2unet_core.network.keys import is_trunk_key, trunk_hash, trunk_identity
from sam2unet_core.network.sam2unet import SAM2UNet
from sam2unet_core.network.variants import Variant
from sam2unet_core.task import Task


def save_delta(model: SAM2UNet, path: Path | str, *, task: Task | None) -> None:
    """Save all weights but the frozen trunk's, with the trunk's hash and the task.

    If the trunk is trained too, the whole network is saved, as by `save_full`.

    Raises:
        WeightsError: the task's number of channels differs from the network's, a value is not
            finite, or the file cannot be written.
    """
    if not model.trunk_is_frozen:
        save_full(model, path, task=task)
        return
    state = model.state_dict()
    tensors = {key: value for key, value in state.items() if not is_trunk_key(key)}
    _write(tensors, path, kind=DELTA, variant=model.variant, trunk=trunk_identity(model), task=task)


def save_full(
    model: SAM2UNet, path: Path | str, *, task: Task | None, dtype: torch.dtype = torch.float32
) -> None:
    """Save the whole network.

    Args:
        model: the network.
        path: the file to write; an existing file is replaced only when the new one is complete.
        task: what the network was trained for.
        dtype: float32, or float16 to halve the size; it is read back as float32. The statistics of
            batch normalisation stay float32: they are small, and variances can exceed the range of
            float16.

    Raises:
        WeightsError: as `save_delta`, or a value is too large for float16.
    """
    weights = {name for name, _ in model.named_parameters()}
    state = {
        key: value.to(dtype) if key in weights else value
        for key, value in model.state_dict().items()
    }
    _write(state, path, kind=FULL, variant=model.variant, trunk=trunk_hash(state), task=task)


def split(full: Path | str, *, delta: Path | str, task: Task | None = None) -> str:
    """Write the delta of a file that holds a whole network.

    Args:
        full: any file with trunk and decoder, such as the authors'.
        delta: the file to write.
        task: what it was trained for; by default the task stored in `full`.

    Returns:
        The hash of the trunk that the delta needs.

    Raises:
        WeightsError: a file cannot be read or written, or `full` lacks the trunk or the decoder.
    """
    whole = read_checkpoint(full)
    if not (whole.has_trunk and whole.has_decoder):
        raise WeightsError(f"{full}: is not a whole network; give a file with trunk and decoder")
    tensors = {key: value for key, value in whole.tensors.items() if not is_trunk_key(key)}
    trunk = trunk_hash(whole.tensors)
    kept = task or whole.task
    _write(tensors, delta, kind=DELTA, variant=_variant(whole), trunk=trunk, task=kept)
    return trunk


def merge(trunk: Path | str, delta: Path | str, *, full: Path | str) -> None:
    """Write a whole network from a trunk and a delta.

    Raises:
        WeightsError: a file cannot be read or written, or the delta needs a different trunk.
    """
    base, rest = read_trunk(trunk), read_checkpoint(delta)
    if rest.has_trunk or not rest.has_decoder:
        raise WeightsError(f"{delta}: is not a delta; give a file that holds all but the trunk")
    found = trunk_hash(base.tensors)
    if rest.trunk_sha256 not in (None, found):
        raise WeightsError(
            f"{delta}: needs the trunk {rest.trunk_sha256}, but {trunk} holds {found}; give "
            "the trunk it was trained on"
        )
    variant = _variant(rest)
    _write(
        base.tensors | rest.tensors, full, kind=FULL, variant=variant, trunk=found, task=rest.task
    )


def _variant(checkpoint: Checkpoint) -> Variant:
    if checkpoint.variant is None:
        raise WeightsError(
            f"{checkpoint.path}: its network is none of the known sizes; load it into "
            "SAM2UNet(Variant(...)) and call save_delta or save_full"
        )
    return checkpoint.variant


def _write(
    tensors: Mapping[str, Tensor],
    path: Path | str,
    *,
    kind: str,
    variant: Variant,
    trunk: str,
    task: Task | None,
) -> None:
    num_classes = int(tensors["head.weight"].shape[0])
    if task is not None and task.num_channels != num_classes:
        raise WeightsError(
            f"the network has {num_classes} output channels, the task {task.name!r} needs "
            f"{task.num_channels}; give the task it was trained for"
        )
    diverged = [key for key, value in tensors.items() if not torch.isfinite(value).all()]
    if diverged:
        names = ", ".join(diverged[:3])
        raise WeightsError(
            f"{path}: not written, because values of {names} are not finite; the training diverged"
        )
    metadata = {
        "format": kind,
        "variant": variant.name,
        "variant_row": json.dumps(variant.to_dict()),
        "num_classes": str(num_classes),
        "trunk_sha256": trunk,
    }
    if task is not None:
        metadata["task"] = json.dumps(task.to_dict(), ensure_ascii=False)
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, _with_sorted_metadata(save(plain, metadata=metadata)))
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: cannot be written ({error}); check the folder and the free space"
        ) from error


def _with_sorted_metadata(content: bytes) -> bytes:
    """Return a safetensors file with sorted metadata, so that equal weights give equal files.

    safetensors writes metadata in random order. The file starts with the header's length (8 bytes,
    little endian) and the header, which is JSON padded with blanks.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8)  # tensors start at a multiple of 8
    return len(text).to_bytes(8, "little") + text + content[end:]
