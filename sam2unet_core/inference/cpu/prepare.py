"""A network made faster for inference: the same arithmetic in fewer and better steps.

What is done here is undone by nothing: a network that went through `optimise` segments, but is
neither trained nor saved again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sam2unet_core.inference.cpu.ordered import OrderedTrunk
from sam2unet_core.inference.cpu.packed import PackedConvolution, can_pack, packed_linear
from sam2unet_core.network.blocks import ConvNorm, DoubleConv
from sam2unet_core.network.hiera import MLP, AdaptedBlock, Hiera
from sam2unet_core.network.sam2unet import SAM2UNet


def optimise(network: SAM2UNet, *, size: tuple[int, int], dtype: torch.dtype) -> None:
    """Prepare a network in place for inference on the device where it is.

    Batch normalisation is folded into the convolutions, the position embedding is computed once,
    convolutions take the layout that is fastest, and all weights the given type; on a CPU those of
    convolutions and linear layers alone do. There, those of trunk and decoder are packed, linear
    layers are joined with the GELU or the sum after them, and the tokens of a stage lie window by
    window. Layers that were prepared
    before, such as those of a trunk that two networks share, are left as they are; so a network may
    be prepared again, for images of another size in the same type.

    Args:
        network: in evaluation mode.
        size: (height, width) of the images to come in pixels; others work, only slower.
        dtype: `float32`, `bfloat16` or `float16`.

    Raises:
        ValueError: it was prepared in another type before.
    """
    trunk = network.encoder
    if isinstance(trunk, OrderedTrunk):
        if trunk.dtype != dtype:
            raise ValueError(
                f"the network was prepared in {trunk.dtype}, not {dtype}: load it again for that"
            )
        trunk = trunk.trunk  # its order may be for images of another size
    _fold_batch_norm(network)
    trunk.remember_position(*size)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if next(network.parameters()).device.type == "cpu":
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(dtype)
        _optimise_for_cpu(network, trunk, size, dtype)
    else:  # layers there take one type alone
        network.to(dtype)
        if trunk.position is not None:
            trunk.position = trunk.position.to(dtype)


def _optimise_for_cpu(
    network: SAM2UNet, trunk: Hiera, size: tuple[int, int], dtype: torch.dtype
) -> None:
    if dtype == torch.float16 and trunk.position is not None:
        # What the blocks add to is of that type then. In bfloat16 it has to stay float32: the
        # masks would differ too often from those of float32.
        trunk.position = trunk.position.to(dtype)
    ordered = OrderedTrunk(trunk, size, dtype)
    if can_pack(dtype):
        ends = trunk.stage_ends
        for i, block in enumerate(trunk.blocks):
            stage = sum(i > end for end in ends)
            pools = block.block.pool  # type: ignore[union-attr]
            before = len(ordered.orders[stage - pools].places)  # type: ignore[operator]
            after = math.prod(ordered.orders[stage].size) if pools else before
            _pack_block(block, before, after=after)  # type: ignore[arg-type]
        _pack_linears(network)
        _pack_convolutions(trunk.patch_embed, ordered.size)
        layers: list[list[nn.Module]] = [  # by the stage on whose grid they work
            [network.rfb1, network.up3], [network.rfb2, network.up2], [network.rfb3, network.up1],
            [network.rfb4],
        ]  # fmt: skip
        for order, modules in zip(ordered.orders, layers, strict=True):
            for module in modules:
                _pack_convolutions(module, order.size)
    network.encoder = ordered  # type: ignore[assignment]


def share_trunk(network: SAM2UNet, donor: SAM2UNet) -> None:
    """Let `network` use the frozen layers of `donor`'s trunk, prepared or not, as its own."""
    own, other = network.encoder, donor.encoder
    if isinstance(other, OrderedTrunk):
        other = other.trunk
    own.patch_embed = other.patch_embed
    own.pos_embed, own.pos_embed_window = other.pos_embed, other.pos_embed_window
    own.position = other.position
    for mine, theirs in zip(own.blocks, other.blocks, strict=True):
        mine.block = theirs.block


def _pack_block(adapted: AdaptedBlock, before: int, *, after: int) -> None:
    """Pack the linear layers of a block that makes so many tokens of so many."""
    attention = adapted.block.attn
    if isinstance(attention.proj, nn.Linear):
        attention.proj = packed_linear(attention.proj, rows=after)  # type: ignore[assignment]
    _pack_linears(adapted.block.mlp, rows=after)
    _pack_linears(adapted, rows=before)


def _pack_linears(module: nn.Module, rows: int = 0) -> None:
    """Pack the linear layers below a module one by one, so that each frees what it replaces."""
    if isinstance(module, MLP) and isinstance(module.layers[0], nn.Linear):
        module.layers[0] = packed_linear(module.layers[0], gelu=True, rows=rows)
        module.act = nn.Identity()  # type: ignore[assignment]
    elif isinstance(module, AdaptedBlock) and len(module.prompt_learn) == 4:
        down, up = module.prompt_learn[0], module.prompt_learn[2]
        if isinstance(down, nn.Linear) and isinstance(up, nn.Linear):
            packed = (packed_linear(layer, gelu=True, rows=rows) for layer in (down, up))
            module.prompt_learn = nn.Sequential(*packed)
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, packed_linear(child, rows=rows))
        else:
            _pack_linears(child, rows)


def _pack_convolutions(module: nn.Module, size: tuple[int, int]) -> None:
    """Pack the convolutions below a module, which all get maps of that (height, width)."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, PackedConvolution(child, size=size))
        else:
            _pack_convolutions(child, size)


def _fold_batch_norm(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, ConvNorm) and isinstance(module.bn, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()  # type: ignore[assignment]
        elif isinstance(module, DoubleConv):
            module.double_conv = nn.Sequential(*_folded(list(module.double_conv)))


def _folded(layers: list[nn.Module]) -> Iterator[nn.Module]:
    """Yield layers, each convolution joined with the batch normalisation after it."""
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            yield fuse_conv_bn_eval(layer, following)
        elif not isinstance(layer, nn.BatchNorm2d):
            yield layer
