"""The trunk for inference on a CPU, with the tokens of each stage ordered by window.

All layers of a block except attention and pooling treat tokens independently, so their order does
not matter. Ordering them once per stage saves cutting and joining windows in every block. A window
that reaches beyond the grid has one additional token that represents all of its padding. Its query,
key and value are overwritten in every block, and it is dropped at the end of the stage. Results
equal those of `Hiera` except for the order of some sums.
"""

from __future__ import annotations

from itertools import islice, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sam2unet_core.inference.cpu.packed import PackedLinear
from sam2unet_core.network.hiera import AdaptedBlock, Hiera, WindowAttention


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
