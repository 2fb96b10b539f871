"""The trunk for inference on a CPU: the tokens of a stage lie window by window.

All layers of a block but attention treat each token alone, so tokens may lie in any order. Put in
order once for a stage, they need not be cut into windows and joined again in every block. The
numbers are those of `Hiera`, but for the order in which some are added.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sam2unet_core.network.attention import WindowAttention, whole_and_rest, window_view
from sam2unet_core.network.hiera import AdaptedBlock, Hiera
from sam2unet_core.network.packed import PackedLinear


class Group(NamedTuple):
    """Windows that are neighbours in the order and are filled up alike."""

    start: int
    """The first of their tokens."""
    windows: int
    """How many."""
    real: int
    """Tokens of each."""
    missing: int
    """Places of each that were filled up."""


class WindowOrder(NamedTuple):
    """How the tokens of a `size` = (height, width) grid lie window by window."""

    size: tuple[int, int]
    places: Tensor
    """Place on the grid of each token, `(H * W,)` int64."""
    inverse: Tensor
    """The way back."""
    groups: list[Group]


def window_order(height: int, width: int, window: int) -> WindowOrder:
    """Return the order of a `height` x `width` grid cut into windows from its upper left corner."""
    grid = torch.arange(height * width).view(1, height, width, 1)
    places: list[Tensor] = []
    groups: list[Group] = []
    start = 0
    for rows in whole_and_rest(height, window):
        for columns in whole_and_rest(width, window):
            part = grid[:, rows, columns]
            h, w = min(part.size(1), window), min(part.size(2), window)
            windows = window_view(part, h, w).reshape(-1, h * w)
            group = Group(start, len(windows), h * w, window**2 - h * w)
            if groups and groups[-1][2:] == group[2:]:  # the two edges of a square
                group = Group(groups[-1].start, groups.pop().windows + group.windows, *group[2:])
            groups.append(group)
            places.append(windows.flatten())
            start += windows.numel()
    order = torch.cat(places)
    return WindowOrder((height, width), order, order.argsort(), groups)


class OrderedTrunk(nn.Module):
    """Runs a trunk whose layers were prepared for inference; in evaluation mode alone.

    Args:
        trunk: its layers are used, not copied.
        size: (height, width) of the images to come in pixels; others go through `trunk` as it is.
    """

    def __init__(self, trunk: Hiera, size: tuple[int, int]) -> None:
        """Compute the orders."""
        super().__init__()
        self.trunk = trunk
        rows, columns = (-(-length // 32) * 8 for length in size)
        self.size = (4 * rows, 4 * columns)
        self.orders = [
            window_order(rows // 2**stage, columns // 2**stage, side)
            for stage, side in enumerate(trunk.windows)
        ]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the feature maps of the four stages, finest first, as `Hiera.forward`."""
        if tuple(image.shape[-2:]) != self.size:
            plain: list[Tensor] = self.trunk(image)
            return plain
        x = self.trunk.embed(image)
        features: list[Tensor] = []
        blocks = iter(self.trunk.blocks)
        done = 0
        for order, last in zip(self.orders, self.trunk.stage_ends, strict=True):
            if features:  # the first block pools, on the grid
                x = next(blocks)(x)
                done += 1
            grid = x.shape  # (B, H, W, C)
            x = x.flatten(1, 2).index_select(1, order.places)
            for block in islice(blocks, last + 1 - done):
                x = _run(block, x, order.groups)  # type: ignore[arg-type]
            done = last + 1
            x = x.index_select(1, order.inverse).view(grid)
            features.append(x.permute(0, 3, 1, 2).to(image.dtype))  # (B, C, H, W)
        return features


def _run(adapted: AdaptedBlock, x: Tensor, groups: list[Group]) -> Tensor:
    """Return what a block that does not pool makes of `(B, T, C)` tokens, without attention's cuts.

    Sums go into a tensor that is there already, or are left to the product before them.
    """
    block = adapted.block
    x = x + adapted.prompt_learn(x)
    attended = _attend(block.attn, block.attn.qkv(block.norm1(x)), groups)
    x = _added(block.attn.proj, attended, onto=x)
    hidden = block.mlp.act(block.mlp.layers[0](block.norm2(x)))
    return _added(block.mlp.layers[1], hidden, onto=x)


def _attend(attention: WindowAttention, qkv: Tensor, groups: list[Group]) -> Tensor:
    """Attend within the windows of `(B, T, 3*C)`; those of a group go together: `(B, T, C)`."""
    batch, tokens, channels = qkv.shape
    if attention.window == 0:
        groups = [Group(0, 1, tokens, 0)]
    outputs = []
    for start, count, real, missing in groups:
        part = qkv[:, start : start + count * real].view(batch, count, real, channels)
        found = attention.attend_alike(part, missing)  # (B * N, n, C)
        outputs.append(found.view(batch, -1, channels // 3))
    return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]


def _added(layer: nn.Module, x: Tensor, *, onto: Tensor) -> Tensor:
    """Return `onto + layer(x)`; `onto` may be overwritten."""
    if isinstance(layer, PackedLinear) and onto.dtype == layer.packed.dtype:
        return layer.add(x, onto)
    return onto.add_(layer(x))
