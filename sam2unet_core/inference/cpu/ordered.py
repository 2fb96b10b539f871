"""The trunk for inference on a CPU: the tokens of a stage lie window by window.

All layers of a block but attention and pooling treat each token alone, so tokens may lie in any
order. Put in order once for a stage, they need not be cut into windows and joined again in every
block. A window that reaches beyond the grid has one token more, the filler, which stands for all
that fill it up: its query, key and value are overwritten in every block, and it is left out in the
end. The numbers are those of `Hiera`, but for the order in which some are added.
"""

from __future__ import annotations

from itertools import islice, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sam2unet_core.inference.cpu.packed import PackedLinear
from sam2unet_core.network.attention import WindowAttention
from sam2unet_core.network.hiera import AdaptedBlock, Hiera


class Group(NamedTuple):
    """Windows that are neighbours in the order and are filled up alike."""

    start: int
    """The first of their tokens."""
    windows: int
    """How many."""
    tokens: int
    """Of each, with the filler, which is the last."""
    real: int
    """Of each, those that lie on the grid."""
    weight: Tensor | None
    """Logarithm of the number of places that each token stands for, `(1, 1, 1, tokens)`; None
    where that is one for all."""

    def of(self, x: Tensor) -> Tensor:
        """View the group's part of `(B, T, C)` as `(B, windows, tokens, C)`."""
        part = x[:, self.start : self.start + self.windows * self.tokens]
        return part.view(x.size(0), self.windows, self.tokens, x.size(2))


class WindowOrder(NamedTuple):
    """How the tokens of a `size` = (height, width) grid lie window by window.

    In a window of even sides, the four tokens that pooling would join are neighbours.
    """

    size: tuple[int, int]
    places: Tensor
    """Place on the grid of each token, `(T,)` int64; -1 for fillers."""
    fillers: Tensor
    """Which tokens are fillers, int64."""
    groups: list[Group]
    whole: Group
    """All as one window, for attention to all; fillers stand for no place then."""


def window_order(height: int, width: int, window: int, dtype: torch.dtype) -> WindowOrder:
    """Return the order of a `height` x `width` grid cut into windows from its upper left corner.

    Args:
        height: of the grid, in tokens.
        width: the same.
        window: side of a window.
        dtype: of the groups' weights: that of queries, keys and values.
    """
    alike: dict[int, list[Tensor]] = {}  # by tokens on the grid: both edges of a square are alike
    grid = torch.arange(height * width).view(1, height, width, 1)
    for rows in whole_and_rest(height, window):
        for columns in whole_and_rest(width, window):
            part = grid[:, rows, columns]
            h, w = min(part.size(1), window), min(part.size(2), window)
            windows = window_view(part, h, w).reshape(-1, h, w)
            if h % 2 == 0 and w % 2 == 0:
                windows = windows.view(-1, h // 2, 2, w // 2, 2).transpose(2, 3)
            alike.setdefault(h * w, []).append(windows.reshape(-1, h * w))
    groups: list[Group] = []
    places: list[Tensor] = []
    for real, parts in alike.items():
        tokens, weight = torch.cat(parts), None
        if real < window**2:
            tokens = F.pad(tokens, (0, 1), value=-1)
            weight = _weight([1] * real + [window**2 - real], dtype)
        start = sum(map(len, places))
        groups.append(Group(start, tokens.size(0), tokens.size(1), real, weight))
        places.append(tokens.flatten())
    order = torch.cat(places)
    fillers = (order < 0).nonzero().flatten()
    weight = _weight((order >= 0).tolist(), dtype) if len(fillers) else None
    whole = Group(0, 1, len(order), height * width, weight)
    return WindowOrder((height, width), order, fillers, groups, whole)


def _weight(count: list[int], dtype: torch.dtype) -> Tensor:
    return torch.tensor(count, dtype=torch.float64).log().to(dtype).view(1, 1, 1, -1)


class OrderedTrunk(nn.Module):
    """Runs a trunk whose layers were prepared for inference; in evaluation mode alone.

    Args:
        trunk: its layers are used, not copied.
        size: (height, width) of the images to come in pixels; others go through `trunk` as it is.
        dtype: of the linear layers.
    """

    def __init__(self, trunk: Hiera, size: tuple[int, int], dtype: torch.dtype) -> None:
        """Compute the orders, and how to come from one to the next."""
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
            _inverse(places)[order.places.clamp(min=0)]  # what a filler starts from is all the same
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
            pooling = int(stage > 0)  # the first block does, in the order of the stage before
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
    """Return what a block makes of `(B, T, C)` tokens.

    Sums go into a tensor that is there already, or are left to the product before them.
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

    Where the block pools, a quarter of the tokens come out, without fillers.
    """
    if len(order.fillers):
        bias = attention.qkv.bias.to(qkv.dtype)
        qkv.index_copy_(1, order.fillers, bias.expand(len(qkv), len(order.fillers), -1))
    if attention.window == 0:
        queries = _pool_all(_queries(qkv), order.groups)[:, None] if attention.pool else None
        return _attend_alike(attention, qkv[:, None], order.whole, queries)
    found = []
    for group in order.groups:
        windows = group.of(qkv)
        queries = _pool(_queries(windows)[:, :, : group.real]) if attention.pool else None
        found.append(_attend_alike(attention, windows, group, queries))
    return _join(found)


def _queries(qkv: Tensor) -> Tensor:
    return qkv[..., : qkv.size(-1) // 3]


def _attend_alike(
    attention: WindowAttention, windows: Tensor, group: Group, queries: Tensor | None
) -> Tensor:
    """Attend within `(B, N, n, 3*C)` windows: `(B, N*n, C)`.

    With other queries than theirs, `(B, N, m, C)`: `(B, N*m, C)`.
    """
    batch, count, tokens, width = windows.shape
    each = (attention.heads, width // 3 // attention.heads)
    parts = windows.reshape(batch * count, tokens, 3, *each).permute(2, 0, 3, 1, 4)
    q, k, v = parts.unbind()  # (B*N, heads, n, C/heads)
    if queries is not None:
        q = queries.reshape(batch * count, -1, *each).transpose(1, 2)
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=group.weight)
    return x.transpose(1, 2).reshape(batch, -1, width // 3)


def _pool(x: Tensor) -> Tensor:
    """Take the maximum of each four neighbours: `(B, N, n, C)` to `(B, N, n/4, C)`."""
    batch, windows, tokens, channels = x.shape
    pairs = x.view(batch, windows, tokens // 4, 2, 2, channels)
    pairs = torch.maximum(pairs[:, :, :, 0], pairs[:, :, :, 1])  # on a CPU faster than `amax`
    return torch.maximum(pairs[:, :, :, 0], pairs[:, :, :, 1])


def _pool_all(x: Tensor, groups: list[Group]) -> Tensor:
    """Pool `(B, T, C)` tokens to `(B, T/4, C)`, without fillers."""
    return _join([_pool(group.of(x)[:, :, : group.real]).flatten(1, 2) for group in groups])


def _join(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def _places_once_pooled(order: WindowOrder) -> Tensor:
    """Return the place on the grid of half the size of each token that pooling leaves, in order."""
    width = order.size[1]
    kept = [group.of(order.places[None, :, None])[0, :, : group.real : 4] for group in order.groups]
    places = torch.cat([each.flatten() for each in kept])
    return places // width // 2 * (width // 2) + places % width // 2


def _inverse(places: Tensor) -> Tensor:
    """Return which token lies on each place of the grid, of the place of each token."""
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
