"""State-dict keys: the mapping between our names, which are the authors', and SAM2's trunk names.

Ours                              SAM2's trunk (canonical)
`encoder.pos_embed`               `pos_embed`
`encoder.blocks.N.block.REST`     `blocks.N.REST`
`encoder.blocks.N.prompt_learn.*` none: an adapter is not part of the trunk
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

ENCODER = "encoder."
"""Prefix of the trunk and its adapters."""
_ADAPTER = ".prompt_learn."
_OURS = re.compile(r"^encoder\.blocks\.(\d+)\.block\.")
_SAM2 = re.compile(r"^blocks\.(\d+)\.")


def is_trunk_key(key: str) -> bool:
    """Return whether our key `key` belongs to the trunk (adapters do not)."""
    return key.startswith(ENCODER) and _ADAPTER not in key


def trunk_keys(state_dict: Iterable[str]) -> list[str]:
    """Return the trunk's keys, in the order given."""
    return [key for key in state_dict if is_trunk_key(key)]


def canonical_key(key: str) -> str:
    """Convert our key of a trunk weight to SAM2's."""
    return _OURS.sub(r"blocks.\1.", key).removeprefix(ENCODER)


def our_key(canonical: str) -> str:
    """Convert SAM2's key of a trunk weight to ours."""
    return ENCODER + _SAM2.sub(r"blocks.\1.block.", canonical)


def trunk_hash(state_dict: Mapping[str, Tensor]) -> str:
    r"""Return the hash that identifies a trunk by its values.

    It is the SHA-256 over the canonical keys in sorted order: for each, `key\0shape\0` with the
    shape as decimal numbers joined by `x`, then the values as float32, little-endian, row-major.

    Args:
        state_dict: weights under our keys, of which only the trunk counts; or a trunk under SAM2's.
    """
    ours = trunk_keys(state_dict)
    trunk = {canonical_key(k): state_dict[k] for k in ours} if ours else dict(state_dict)
    digest = hashlib.sha256()
    for key in sorted(trunk):
        values = trunk[key].detach().to(device="cpu", dtype=torch.float32).contiguous()
        shape = "x".join(str(n) for n in values.shape)
        digest.update(f"{key}\0{shape}\0".encode())
        digest.update(values.numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def trunk_identity(model: nn.Module) -> str:
    """Return the hash of a network's trunk as it was before `round_frozen`."""
    known: str | None = getattr(model, "trunk_sha256", None)
    return known or trunk_hash(model.state_dict())


def round_frozen(model: nn.Module, dtype: torch.dtype) -> None:
    """Convert a frozen trunk's matrices to `dtype`, as autocast does in training anyway.

    A 16-bit type halves their memory and saves the conversion at every step. The network keeps the
    trunk's original hash, so saved deltas still refer to the trunk's file.
    """
    frozen = frozen_keys(model)
    if not frozen:
        return
    model.trunk_sha256 = trunk_identity(model)  # type: ignore[assignment]
    for name, parameter in model.named_parameters():
        if name in frozen and parameter.ndim == 2:
            parameter.data = parameter.data.to(dtype)


def trainable_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return all weights and buffers except those of a frozen trunk."""
    frozen = frozen_keys(model)
    return {k: v for k, v in model.state_dict().items() if k not in frozen}


def frozen_keys(model: nn.Module) -> set[str]:
    """Return the keys of the trunk's weights if the trunk is frozen, else an empty set."""
    trunk = {name: p for name, p in model.named_parameters() if is_trunk_key(name)}
    return set() if any(p.requires_grad for p in trunk.values()) else set(trunk)
