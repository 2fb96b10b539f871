"""Weights from a file into a network."""

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
"""Prefixes of what the number of classes decides the shape of."""

_LISTED = 10


@dataclass(frozen=True)
class LoadedWeights:
    """What `load_weights` did.

    Attributes:
        path: the file.
        format: which kind of file it is.
        keys: number of weights and buffers that were loaded.
        trunk_only: the decoder and the adapters are as they were before.
        without_trunk: the trunk is as it was before.
        other_channels: output channels of the file, where its heads were left out for that.
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
        line = f"{self.keys} weights ({part}) from a file of kind {self.format!r}"
        if self.other_channels is None:
            return line
        return f"{line}, but not the heads: the file's have {self.other_channels} output channels"


def load_weights(
    model: SAM2UNet, path: Path | str, *, other_classes: bool = False
) -> LoadedWeights:
    """Read whatever weights file is given into `model`.

    SAM2's and SAM2.1's official files hold the trunk only, deltas all but the trunk; the rest of
    the model then stays as it is, and the result says so.

    Args:
        model: takes the weights.
        path: the file.
        other_classes: whether the file may be of another number of output channels; its heads
            are then left out, and the model's stay as they are.

    Raises:
        WeightsError: the file cannot be read or does not fit; or it is a delta to another trunk
            than the model's.
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
    """Build the network that a weights file belongs to, with its weights, in eval mode.

    A delta's trunk is looked up by its hash in the cache. From a file that holds only a trunk
    comes a network with one output channel and a decoder still to be trained.

    Args:
        path: the file.
        matrices: type of large matrices; a 16-bit type halves the memory that loading takes.
            Those of a delta's trunk are read in float32, which its hash is of.

    Raises:
        MissingWeightsError: the delta's trunk is not in the cache; the message has the lines
            that get it.
        WeightsError: the file cannot be read, or the size of its network cannot be told.
    """
    return build_model(read_checkpoint(path, matrices=matrices))


def build_model(checkpoint: Checkpoint) -> SAM2UNet:
    """Build the network of a weights file that has been read; see `load_model`."""
    if checkpoint.variant is None:
        raise WeightsError(
            f"{checkpoint.path}: its network is none of the known sizes; build it with "
            "SAM2UNet(Variant(...)) and use load_weights"
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
    """Build the network of a delta without its trunk, which the caller puts in.

    Raises:
        WeightsError: it is not all that a network has beside the trunk.
    """
    if delta.variant is None:
        raise WeightsError(f"{delta.path}: its network is none of the known sizes")
    with torch.device("meta"):
        network = SAM2UNet(delta.variant, num_classes=delta.num_classes or 1)
    _compare(delta, {k: tuple(v.shape) for k, v in network.state_dict().items()}, network)
    network.load_state_dict(delta.tensors, strict=False, assign=True)
    return network


def load_trainable_state_dict(model: SAM2UNet, state_dict: Mapping[str, Tensor]) -> None:
    """Load what `trainable_state_dict` returned.

    Raises:
        WeightsError: keys are missing, unexpected or of another shape.
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
                f"{checkpoint.path}: belongs to the trunk {checkpoint.trunk_sha256}, the network's "
                f"trunk is {found}. Load that trunk first (or use load_model, which does); "
                f"{how_to_get(model.variant)}"
            )
    if checkpoint.has_trunk:
        model.trunk_sha256 = None
    on_meta = any(value.is_meta for value in model.state_dict().values())
    model.load_state_dict(checkpoint.tensors, strict=False, assign=on_meta)


def _trunk_of(checkpoint: Checkpoint) -> Checkpoint:
    """Read the trunk that a delta needs from the cache."""
    variant = checkpoint.variant
    if checkpoint.trunk_sha256 is None or variant is None:
        raise WeightsError(
            f"{checkpoint.path}: holds no trunk and names none; load a trunk into the network "
            "first, then this file, with load_weights"
        )
    path = find_trunk(checkpoint.trunk_sha256)
    if path is None:
        raise MissingWeightsError(
            f"{checkpoint.path}: needs the {variant.name} trunk {checkpoint.trunk_sha256}, which "
            f"is not in the cache; {how_to_get(variant)}"
        )
    return read_trunk(path)


def read_trunk(path: Path | str) -> Checkpoint:
    """Read a weights file of any kind that has a trunk, and leave all but the trunk out.

    Raises:
        WeightsError: the file cannot be read or has no trunk.
    """
    whole = read_checkpoint(path)
    trunk = {key: value for key, value in whole.tensors.items() if is_trunk_key(key)}
    if not trunk:
        raise WeightsError(f"{whole.path}: holds no trunk; give SAM2's own file or a whole network")
    return Checkpoint(whole.path, "sam2", trunk, whole.variant, None)


def check_trunk(path: Path | str, variant: Variant) -> Checkpoint:
    """Read a file's trunk and make sure that it is one of that size of network.

    Raises:
        WeightsError: the file cannot be read, or has no trunk or one of another size.
    """
    trunk = read_trunk(path)
    _compare(replace(trunk, variant=variant), _shapes(variant, 1))
    return trunk


def _shapes(variant: Variant, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's weights without making them."""
    with torch.device("meta"):
        model = SAM2UNet(variant, num_classes=num_classes)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def _compare(
    checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]], model: SAM2UNet | None = None
) -> None:
    """Refuse a file whose weights are not those that the parts it holds should have."""
    has_trunk, has_decoder = checkpoint.has_trunk, checkpoint.has_decoder  # each looks at all keys
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
    advice = "get the file again"
    if model is not None and checkpoint.variant and checkpoint.variant.name != name:
        advice = (
            f"the file is of {checkpoint.variant.name!r}: build that network, or use load_model"
        )
    elif model is not None and checkpoint.num_classes not in (None, model.num_classes):
        advice = f"the file has {checkpoint.num_classes} output channels: build as many"
    raise WeightsError(
        f"{checkpoint.path}: does not fit the network {name!r}; {problems}; {advice}"
    )


def _problems(expected: Mapping[str, tuple[int, ...]], got: Mapping[str, tuple[int, ...]]) -> str:
    """List the keys that are missing, unexpected or misshapen, a few of each, with counts."""
    misshapen = [
        f"{key} is {got[key]}, expected {expected[key]}"
        for key in expected
        if key in got and got[key] != expected[key]
    ]
    kinds = {
        "missing": [key for key in expected if key not in got],
        "unexpected": [key for key in got if key not in expected],
        "of another shape": misshapen,
    }
    return "; ".join(
        f"{len(found)} {kind}: {', '.join(found[:_LISTED])}{', ...' * (len(found) > _LISTED)}"
        for kind, found in kinds.items()
        if found
    )
