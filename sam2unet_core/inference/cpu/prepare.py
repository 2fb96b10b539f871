"""Optimises a network for inference: the same arithmetic in fewer and faster steps.

This cannot be undone: after `optimise`, a network must not be trained or saved.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sam2unet_core.inference.cpu.ordered import OrderedTrunk
from sam2unet_core.inference.cpu.packed import PackedConvolution, can_pack, packed_linear
from sam2unet_core.network.hiera import MLP, AdaptedBlock, Hiera
from sam2unet_core.network.sam2unet import ConvNorm, DoubleConv, SAM2UNet


def optimise(network: SAM2UNet, *, size: tuple[int, int], dtype: torch.dtype) -> None:
    """Prepare a network in place for inference on its device.

    On all devices, batch normalisation is folded into the convolutions, the position embedding is
    cached, convolutions use the channels-last layout, and weights are converted to `dtype` (on a
    CPU, only those of convolutions and linear layers). On a CPU, layers are packed, linear layers
    are fused with the GELU or sum after them, and the tokens of a stage are ordered by window.

    Layers that are already prepared, such as those of a shared trunk, are left unchanged. A network
    can therefore be prepared again for a different size in the same type.

    Args:
        network: the network, in eval mode.
        size: (height, width) of the images in pixels; other sizes work, but slower.
        dtype: `float32`, `bfloat16` or `float16`.

    Raises:
        ValueError: the network was prepared in a different type.
    """
    trunk = network.encoder
    if isinstance(trunk, OrderedTrunk):
        if trunk.dtype != dtype:
            raise ValueError(
                f"the network was prepared in {trunk.dtype}, not {dtype}; load it again"
            )
        trunk = trunk.trunk  # the order may be for a different size
    _fold_batch_norm(network)
    trunk.remember_position(*size)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if next(network.parameters()).device.type == "cpu":
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(dtype)
        _optimise_for_cpu(network, trunk, size, dtype)
    else:  # other devices need the same type in all layers
        network.to(dtype)
        if trunk.position is not None:
            trunk.position = trunk.position.to(dtype)


def _optimise_for_cpu(
    network: SAM2UNet, trunk: Hiera, size: tuple[int, int], dtype: torch.dtype
) -> None:
    if dtype == torch.float16 and trunk.position is not None:
        # Then the residual stream has this type, too. In bfloat16 it stays float32, or the masks
        # would differ too often from those of float32.
        trunk.position = trunk.position.to(dtype)
    ordered = OrderedTrunk(trunk, size, dtype)
    if can_pack(dtype):
        ends = trunk.stage_ends
        for i, block in enumerate(trunk.blocks):
            stage = sum(i > end for end in ends)
            pools = block.block.pool  # type: ignore[union-attr]
            tokens_in = len(ordered.orders[stage - pools].places)  # type: ignore[operator]
            tokens_out = math.prod(ordered.orders[stage].size) if pools else tokens_in
            _pack_block(block, tokens_in, tokens_out)  # type: ignore[arg-type]
        _pack_linears(network)
        _pack_convolutions(trunk.patch_embed, ordered.size)
        layers: list[list[nn.Module]] = [  # by the stage whose grid they use
            [network.rfb1, network.up3], [network.rfb2, network.up2], [network.rfb3, network.up1],
            [network.rfb4],
        ]  # fmt: skip
        for order, modules in zip(ordered.orders, layers, strict=True):
            for module in modules:
                _pack_convolutions(module, order.size)
    network.encoder = ordered  # type: ignore[assignment]


def share_trunk(network: SAM2UNet, donor: SAM2UNet) -> None:
    """Make `network` share the frozen layers of `donor`'s trunk, prepared or not."""
    own, other = network.encoder, donor.encoder
    if isinstance(other, OrderedTrunk):
        other = other.trunk
    own.patch_embed = other.patch_embed
    own.pos_embed, own.pos_embed_window = other.pos_embed, other.pos_embed_window
    own.position = other.position
    for mine, theirs in zip(own.blocks, other.blocks, strict=True):
        mine.block = theirs.block


def _pack_block(adapted: AdaptedBlock, tokens_in: int, tokens_out: int) -> None:
    """Pack the linear layers of a block, for its numbers of tokens before and after pooling."""
    attention = adapted.block.attn
    if isinstance(attention.proj, nn.Linear):
        attention.proj = packed_linear(attention.proj, rows=tokens_out)  # type: ignore[assignment]
    _pack_linears(adapted.block.mlp, rows=tokens_out)
    _pack_linears(adapted, rows=tokens_in)


def _pack_linears(module: nn.Module, rows: int = 0) -> None:
    """Pack the linear layers of a module one by one, so that each frees the layer it replaces."""
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
    """Pack the convolutions of a module, for maps of `size` = (height, width)."""
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
