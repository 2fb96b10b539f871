"""Optimises a network for inference: the same arithmetic in fewer and faster steps.

This cannot be undone: after `optimise`, a network must not be trained or saved.

On a CPU the tokens of each stage are ordered by window (`OrderedTrunk`): all layers of a block
except attention and pooling treat tokens independently, so their order does not matter, and
ordering them once per stage saves cutting and joining windows in every block. A window that reaches
beyond the grid has one additional token that represents all of its padding. Its query, key and
value are overwritten in every block, and it is dropped at the end of the stage. Results equal those
of `Hiera` except for the order of some sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sam2unet_core.inference.cpu.packed import (
    PackedConvolution,
    PackedLinear,
    can_pack,
    packed_linear,
)
from sam2unet_core.network.hiera import MLP, AdaptedBlock, Hiera, WindowAttention
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


class Group(NamedTuple):
    """Consecutive windows with the same amount of padding."""

    start: int
    """Index of the first token."""
    windows: int
    """Number of windows."""
    tokens: int
    """Tokens per window, including the padding token, which is the last."""
    real: int
    """Tokens per window without the padding token."""
    log_count: Tensor | None
    """Logarithm of the number of tokens that each token represents, `(1, 1, 1, tokens)`; None
    without padding."""

    def of(self, x: Tensor) -> Tensor:
        """View the group's part of `(B, T, C)` as `(B, windows, tokens, C)`."""
        part = x[:, self.start : self.start + self.windows * self.tokens]
        return part.view(x.size(0), self.windows, self.tokens, x.size(2))


class WindowOrder(NamedTuple):
    """The order by window of the tokens of a `size` = (height, width) grid.

    In a window of even sides, the four tokens that pooling joins are consecutive.
    """

    size: tuple[int, int]
    places: Tensor
    """Position of each token in the row-major grid, `(T,)` int64; -1 for padding."""
    padding: Tensor
    """Indices of the padding tokens, int64."""
    groups: list[Group]
    whole: Group
    """All tokens as one window, for global attention, which ignores padding."""


def window_order(height: int, width: int, window: int, dtype: torch.dtype) -> WindowOrder:
    """Return the order of a grid cut into windows from its upper left corner.

    Args:
        height: height of the grid in tokens.
        width: width of the grid in tokens.
        window: side of a window in tokens.
        dtype: type of queries, keys and values.
    """
    by_size: dict[int, list[Tensor]] = {}  # by real tokens; both edges of a square have the same
    grid = torch.arange(height * width).view(1, height, width, 1)
    for rows in whole_and_rest(height, window):
        for columns in whole_and_rest(width, window):
            part = grid[:, rows, columns]
            h, w = min(part.size(1), window), min(part.size(2), window)
            windows = window_view(part, h, w).reshape(-1, h, w)
            if h % 2 == 0 and w % 2 == 0:
                windows = windows.view(-1, h // 2, 2, w // 2, 2).transpose(2, 3)
            by_size.setdefault(h * w, []).append(windows.reshape(-1, h * w))
    groups: list[Group] = []
    places: list[Tensor] = []
    for real, parts in by_size.items():
        tokens, log_count = torch.cat(parts), None
        if real < window**2:
            tokens = F.pad(tokens, (0, 1), value=-1)
            log_count = _log_count([1] * real + [window**2 - real], dtype)
        start = sum(map(len, places))
        groups.append(Group(start, tokens.size(0), tokens.size(1), real, log_count))
        places.append(tokens.flatten())
    order = torch.cat(places)
    padding = (order < 0).nonzero().flatten()
    log_count = _log_count((order >= 0).tolist(), dtype) if len(padding) else None
    whole = Group(0, 1, len(order), height * width, log_count)
    return WindowOrder((height, width), order, padding, groups, whole)


def _log_count(count: list[int], dtype: torch.dtype) -> Tensor:
    return torch.tensor(count, dtype=torch.float64).log().to(dtype).view(1, 1, 1, -1)


class OrderedTrunk(nn.Module):
    """Runs a trunk whose layers were prepared for inference; only in eval mode.

    Args:
        trunk: the trunk; its layers are shared, not copied.
        size: (height, width) of the images in pixels; other sizes go through `trunk` itself.
        dtype: type of the linear layers.
    """

    def __init__(self, trunk: Hiera, size: tuple[int, int], dtype: torch.dtype) -> None:
        """Compute the order of each stage and the permutations between them."""
        super().__init__()
        self.trunk = trunk
        self.dtype = dtype
        rows, columns = (-(-length // 32) * 8 for length in size)
        self.size = (4 * rows, 4 * columns)
        self.orders = [
            window_order(rows // 2**stage, columns // 2**stage, side, dtype)
            for stage, side in enumerate(trunk.windows)
        ]
        before = [torch.arange(rows * columns), *map(_places_once_pooled, self.orders[:-1])]
        self.enter = [
            _inverse(places)[order.places.clamp(min=0)]  # padding can start with any value
            for places, order in zip(before, self.orders, strict=True)
        ]
        self.leave = [_inverse(order.places) for order in self.orders]
        first = [0, *(end + 1 for end in trunk.stage_ends)]
        self.counts = [end - start for start, end in pairwise(first)]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the feature maps of the four stages, finest first, as `Hiera.forward`."""
        if tuple(image.shape[-2:]) != self.size:
            plain: list[Tensor] = self.trunk(image)
            return plain
        x = self.trunk.embed(image).flatten(1, 2)
        features: list[Tensor] = []
        blocks = iter(self.trunk.blocks)
        for stage, order in enumerate(self.orders):
            pooling = int(stage > 0)  # the first block pools, in the order of the previous stage
            for block in islice(blocks, pooling):
                x = _run(block, x, self.orders[stage - 1])  # type: ignore[arg-type]
            x = x.index_select(1, self.enter[stage])
            for block in islice(blocks, self.counts[stage] - pooling):
                x = _run(block, x, order)  # type: ignore[arg-type]
            grid = x.index_select(1, self.leave[stage]).view(
                len(x), *order.size, -1
            )  # (B, H, W, C)
            features.append(grid.permute(0, 3, 1, 2).to(image.dtype))
        return features


def _run(adapted: AdaptedBlock, x: Tensor, order: WindowOrder) -> Tensor:
    """Run a block on `(B, T, C)` tokens.

    Sums are computed in place or fused with the matrix product before them.
    """
    block = adapted.block
    shift = adapted.prompt_learn(x)
    x = shift.add_(x) if shift.dtype == x.dtype else x + shift
    normal = block.norm1(x)
    attended = _attend(block.attn, block.attn.qkv(normal), order)
    if block.proj is not None:
        x = block.proj(normal).to(x.dtype)
        if block.pool:
            x = _pool_all(x, order.groups)
    x = _added(block.attn.proj, attended, onto=x)
    hidden = block.mlp.act(block.mlp.layers[0](block.norm2(x)))
    return _added(block.mlp.layers[1], hidden, onto=x)


def _attend(attention: WindowAttention, qkv: Tensor, order: WindowOrder) -> Tensor:
    """Attend within the windows of `(B, T, 3*C)`, which is overwritten: `(B, T, C)`.

    If the block pools, it returns a quarter of the tokens, without padding.
    """
    if len(order.padding):
        bias = attention.qkv.bias.to(qkv.dtype)
        qkv.index_copy_(1, order.padding, bias.expand(len(qkv), len(order.padding), -1))
    if attention.window == 0:
        queries = _pool_all(_queries(qkv), order.groups)[:, None] if attention.pool else None
        return _attend_group(attention, qkv[:, None], order.whole, queries)
    found = []
    for group in order.groups:
        windows = group.of(qkv)
        queries = _pool(_queries(windows)[:, :, : group.real]) if attention.pool else None
        found.append(_attend_group(attention, windows, group, queries))
    return _join(found)


def _queries(qkv: Tensor) -> Tensor:
    return qkv[..., : qkv.size(-1) // 3]


def _attend_group(
    attention: WindowAttention, windows: Tensor, group: Group, queries: Tensor | None
) -> Tensor:
    """Attend within windows `(B, N, n, 3*C)`: `(B, N*n, C)`.

    With separate `queries` `(B, N, m, C)`, return `(B, N*m, C)`.
    """
    batch, count, tokens, width = windows.shape
    each = (attention.heads, width // 3 // attention.heads)
    parts = windows.reshape(batch * count, tokens, 3, *each).permute(2, 0, 3, 1, 4)
    q, k, v = parts.unbind()  # (B*N, heads, n, C/heads)
    if queries is not None:
        q = queries.reshape(batch * count, -1, *each).transpose(1, 2)
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=group.log_count)
    return x.transpose(1, 2).reshape(batch, -1, width // 3)


def _pool(x: Tensor) -> Tensor:
    """Take the maximum of each four consecutive tokens: `(B, N, n, C)` to `(B, N, n/4, C)`."""
    batch, windows, tokens, channels = x.shape
    pairs = x.view(batch, windows, tokens // 4, 2, 2, channels)
    pairs = torch.maximum(pairs[:, :, :, 0], pairs[:, :, :, 1])  # faster than `amax`
    return torch.maximum(pairs[:, :, :, 0], pairs[:, :, :, 1])


def _pool_all(x: Tensor, groups: list[Group]) -> Tensor:
    """Pool `(B, T, C)` tokens to `(B, T/4, C)`, without padding."""
    return _join([_pool(group.of(x)[:, :, : group.real]).flatten(1, 2) for group in groups])


def _join(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def _places_once_pooled(order: WindowOrder) -> Tensor:
    """Return the positions of the pooled tokens in the grid of half the size."""
    width = order.size[1]
    kept = [group.of(order.places[None, :, None])[0, :, : group.real : 4] for group in order.groups]
    places = torch.cat([each.flatten() for each in kept])
    return places // width // 2 * (width // 2) + places % width // 2


def _inverse(places: Tensor) -> Tensor:
    """Return the token at each position of the grid, given the position of each token."""
    tokens = (places >= 0).nonzero().flatten()
    return tokens[places[tokens].argsort()]


def _added(layer: nn.Module, x: Tensor, *, onto: Tensor) -> Tensor:
    """Return `onto + layer(x)`; `onto` may be overwritten."""
    if isinstance(layer, PackedLinear) and onto.dtype == layer.packed.dtype:
        return layer.add(x, onto)
    return onto.add_(layer(x))


def whole_and_rest(length: int, window: int) -> list[slice]:
    """Return what whole windows cover of a side, and what is left; neither is empty."""
    whole = length - length % window
    return [span for span in (slice(0, whole), slice(whole, length)) if span.start < span.stop]


def window_view(x: Tensor, height: int, width: int) -> Tensor:
    """View `(B, H, W, C)` as `(B, H/height, W/width, height, width, C)`."""
    b, full_height, full_width, channels = x.shape
    shape = (b, full_height // height, height, full_width // width, width, channels)
    return x.view(shape).transpose(2, 3)
