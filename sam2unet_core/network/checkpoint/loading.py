"""Loads weights files into networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sam2unet_core.errors import MissingWeightsError, WeightsError
from sam2unet_core.network.checkpoint.cache import find_trunk, how_to_get
from sam2unet_core.network.checkpoint.formats import Checkpoint, Format, read_checkpoint
from sam2unet_core.network.keys import is_trunk_key, trainable_state_dict, trunk_identity
from sam2unet_core.network.sam2unet import SAM2UNet
from sam2unet_core.network.variants import Variant

HEADS = ("head.", "side1.", "side2.")
"""Prefixes of the weights whose shape depends on the number of classes."""

_LISTED = 10


@dataclass(frozen=True)
class LoadedWeights:
    """What `load_weights` loaded.

    Attributes:
        path: the file.
        format: the format of the file.
        keys: number of weights and buffers that were loaded.
        trunk_only: the decoder and the adapters are unchanged.
        without_trunk: the trunk is unchanged.
        other_channels: the file's number of output channels, if its heads were skipped because
            that number differs; else None.
    """

    path: Path
    format: Format
    keys: int
    trunk_only: bool
    without_trunk: bool
    other_channels: int | None = None

    def __str__(self) -> str:
        """Return one line for a log."""
        part = "trunk only" if self.trunk_only else "all but the trunk"
        part = part if self.trunk_only or self.without_trunk else "whole network"
        line = f"{self.keys} weights ({part}) from a file of format {self.format!r}"
        if self.other_channels is None:
            return line
        return f"{line}, without the heads: the file has {self.other_channels} output channels"


def load_weights(
    model: SAM2UNet, path: Path | str, *, other_classes: bool = False
) -> LoadedWeights:
    """Load a weights file of any format into `model`.

    SAM2's and SAM2.1's official files hold only the trunk, deltas hold all but the trunk; the rest
    of the model is left unchanged, and the result says so.

    Args:
        model: the network that gets the weights.
        path: the file.
        other_classes: accept a file with a different number of output channels; its heads are then
            skipped, and the model keeps its own.

    Raises:
        WeightsError: the file cannot be read or does not fit, or it is a delta to a different
            trunk.
    """
    checkpoint = read_checkpoint(path)
    kept: dict[str, Tensor] = {}
    if other_classes and checkpoint.num_classes not in (None, model.num_classes):
        kept = {k: v for k, v in model.state_dict().items() if k.startswith(HEADS)}
    _load(model, replace(checkpoint, tensors=checkpoint.tensors | kept))
    return LoadedWeights(
        path=checkpoint.path,
        format=checkpoint.format,
        keys=len(checkpoint.tensors) - len(kept),
        trunk_only=not checkpoint.has_decoder,
        without_trunk=not checkpoint.has_trunk,
        other_channels=checkpoint.num_classes if kept else None,
    )


def load_model(path: Path | str, *, matrices: torch.dtype = torch.float32) -> SAM2UNet:
    """Build the network of a weights file and load its weights, in eval mode.

    A delta's trunk is looked up in the cache by its hash. A file that holds only a trunk gives a
    network with one output channel and an untrained decoder.

    Args:
        path: the file.
        matrices: type of large matrices; a 16-bit type halves the memory that loading takes. A
            delta's trunk is always read as float32, because its hash is computed in float32.

    Raises:
        MissingWeightsError: the delta's trunk is not in the cache; the message has the commands
            that get it.
        WeightsError: the file cannot be read, or its variant is unknown.
    """
    return build_model(read_checkpoint(path, matrices=matrices))


def build_model(checkpoint: Checkpoint) -> SAM2UNet:
    """Build the network of a checkpoint; see `load_model`."""
    if checkpoint.variant is None:
        raise WeightsError(
            f"{checkpoint.path}: its network is none of the known sizes; build it with "
            "SAM2UNet(Variant(...)) and call load_weights"
        )
    classes = checkpoint.num_classes or 1
    _compare(checkpoint, _shapes(checkpoint.variant, classes))
    trunk = None if checkpoint.has_trunk else _trunk_of(checkpoint)
    with torch.device("meta" if checkpoint.has_decoder else "cpu"):
        model = SAM2UNet(checkpoint.variant, num_classes=classes)
    if trunk is not None:
        _load(model, trunk)
    _load(model, checkpoint)
    return model.eval()


def build_on_trunk(delta: Checkpoint) -> SAM2UNet:
    """Build the network of a delta; the caller loads the trunk.

    Raises:
        WeightsError: the delta's variant is unknown, or weights are missing or do not fit.
    """
    if delta.variant is None:
        raise WeightsError(f"{delta.path}: its network is none of the known sizes")
    with torch.device("meta"):
        network = SAM2UNet(delta.variant, num_classes=delta.num_classes or 1)
    _compare(delta, {k: tuple(v.shape) for k, v in network.state_dict().items()}, network)
    network.load_state_dict(delta.tensors, strict=False, assign=True)
    return network


def load_trainable_state_dict(model: SAM2UNet, state_dict: Mapping[str, Tensor]) -> None:
    """Load the output of `trainable_state_dict`.

    Raises:
        WeightsError: keys are missing, unexpected or of the wrong shape.
    """
    expected = {k: tuple(v.shape) for k, v in trainable_state_dict(model).items()}
    problems = _problems(expected, {k: tuple(v.shape) for k, v in state_dict.items()})
    if problems:
        raise WeightsError(f"the state does not fit the network {model.variant.name!r}; {problems}")
    model.load_state_dict(dict(state_dict), strict=False)


def _load(model: SAM2UNet, checkpoint: Checkpoint) -> None:
    _compare(checkpoint, {k: tuple(v.shape) for k, v in model.state_dict().items()}, model)
    if not checkpoint.has_trunk and checkpoint.trunk_sha256 is not None:
        found = trunk_identity(model)
        if found != checkpoint.trunk_sha256:
            raise WeightsError(
                f"{checkpoint.path}: needs the trunk {checkpoint.trunk_sha256}, but the network's "
                f"trunk is {found}. Load that trunk first, or call load_model, which loads both; "
                f"{how_to_get(model.variant)}"
            )
    if checkpoint.has_trunk:
        model.trunk_sha256 = None
    on_meta = any(value.is_meta for value in model.state_dict().values())
    model.load_state_dict(checkpoint.tensors, strict=False, assign=on_meta)


def _trunk_of(checkpoint: Checkpoint) -> Checkpoint:
    """Read a delta's trunk from the cache."""
    variant = checkpoint.variant
    if checkpoint.trunk_sha256 is None or variant is None:
        raise WeightsError(
            f"{checkpoint.path}: holds no trunk and names none; load a trunk into the network "
            "first, then this file, both with load_weights"
        )
    path = find_trunk(checkpoint.trunk_sha256)
    if path is None:
        raise MissingWeightsError(
            f"{checkpoint.path}: needs the {variant.name} trunk {checkpoint.trunk_sha256}, which "
            f"is not in the cache; {how_to_get(variant)}"
        )
    return read_trunk(path)


def read_trunk(path: Path | str) -> Checkpoint:
    """Read only the trunk of a weights file of any format.

    Raises:
        WeightsError: the file cannot be read or has no trunk.
    """
    whole = read_checkpoint(path)
    trunk = {key: value for key, value in whole.tensors.items() if is_trunk_key(key)}
    if not trunk:
        raise WeightsError(f"{whole.path}: holds no trunk; give SAM2's file or a whole network")
    return Checkpoint(whole.path, "sam2", trunk, whole.variant, None)


def check_trunk(path: Path | str, variant: Variant) -> Checkpoint:
    """Read a file's trunk and check that it fits the variant.

    Raises:
        WeightsError: the file cannot be read, has no trunk, or its trunk does not fit.
    """
    trunk = read_trunk(path)
    _compare(replace(trunk, variant=variant), _shapes(variant, 1))
    return trunk


def _shapes(variant: Variant, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's weights without allocating them."""
    with torch.device("meta"):
        model = SAM2UNet(variant, num_classes=num_classes)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def _compare(
    checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]], model: SAM2UNet | None = None
) -> None:
    """Raise a `WeightsError` if the file's trunk or decoder is incomplete or does not fit."""
    has_trunk, has_decoder = checkpoint.has_trunk, checkpoint.has_decoder  # each scans all keys
    expected = {
        key: shape
        for key, shape in shapes.items()
        if (has_trunk if is_trunk_key(key) else has_decoder)
    }
    got = {key: tuple(value.shape) for key, value in checkpoint.tensors.items()}
    problems = _problems(expected, got)
    if not problems:
        return
    target = checkpoint.variant if model is None else model.variant
    name = target.name if target else "?"
    advice = "download the file again"
    if model is not None and checkpoint.variant and checkpoint.variant.name != name:
        advice = (
            f"the file is of {checkpoint.variant.name!r}: build that network, or call load_model"
        )
    elif model is not None and checkpoint.num_classes not in (None, model.num_classes):
        count = checkpoint.num_classes
        advice = f"the file has {count} output channels: build a network with num_classes={count}"
    raise WeightsError(
        f"{checkpoint.path}: does not fit the network {name!r}; {problems}; {advice}"
    )


def _problems(expected: Mapping[str, tuple[int, ...]], got: Mapping[str, tuple[int, ...]]) -> str:
    """Describe the keys that are missing, unexpected or of the wrong shape; empty if none are."""
    misshapen = [
        f"{key} is {got[key]}, expected {expected[key]}"
        for key in expected
        if key in got and got[key] != expected[key]
    ]
    kinds = {
        "missing": [key for key in expected if key not in got],
        "unexpected": [key for key in got if key not in expected],
        "of the wrong shape": misshapen,
    }
    return "; ".join(
        f"{len(found)} {kind}: {', '.join(found[:_LISTED])}{', ...' * (len(found) > _LISTED)}"
        for kind, found in kinds.items()
        if found
    )
