"""Attention for training on a CPU: a fast forward pass, and a backward pass of matrix products.

Only queries, keys and values are kept for the backward pass, as the linear layer put them out:
neither windows nor their padding nor the weights of attention. PyTorch's own backward pass in
16 bits takes three to eight times as long on a CPU, and its plain one keeps float32 copies of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sam2unet_core.inference.cpu.ordered import whole_and_rest, window_view
from sam2unet_core.network.attention import WindowAttention, pool_tokens
from sam2unet_core.network.hiera import Block


def attend_fast_on_cpu(network: nn.Module) -> None:
    """Replace the attention layers of a network that is trained on a CPU by those of this file.

    Weights and their names stay; in evaluation mode the layers compute as before.
    """
    for module in list(network.modules()):
        if isinstance(module, Block) and next(module.parameters()).device.type == "cpu":
            module.attn = CPUTrainingAttention(module.attn)


class CPUTrainingAttention(WindowAttention):
    """Multi-head attention inside windows; see `WindowAttention`.

    Whole windows, the two edges and the corner attend one after another, each on its real tokens
    and one more that stands for all of its padding: a third of the work on a 22 x 22 grid.

    Args:
        other: its layers are taken over.
    """

    def __init__(self, other: WindowAttention) -> None:
        """Take the layers over."""
        nn.Module.__init__(self)
        self.heads, self.window, self.pool = other.heads, other.window, other.pool
        self.qkv, self.proj = other.qkv, other.proj

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, H, W, dim)` to `(B, H, W, dim_out)`, or half of H and W if it pools."""
        if self.pool or not (self.training and torch.is_grad_enabled()):
            return super().forward(x)
        attend = self._attend_split if self.window > 0 else super().attend
        attended = WindowGradient.apply(  # type: ignore[no-untyped-call]
            self.qkv(x), self.qkv.bias, attend, self.heads, self.window
        )
        output: Tensor = self.proj(attended)
        return output

    def attend(self, qkv: Tensor) -> Tensor:
        """Attend within each `(h, w)` grid of `(B, h, w, 3*C)` queries, keys and values."""
        if not (self.pool and self.training and qkv.requires_grad):
            return super().attend(qkv)
        q, k, v = qkv.chunk(3, dim=-1)
        q = pool_tokens(q)
        x = plain_attention(self.split(q), self.split(k), self.split(v))
        return x.transpose(1, 2).reshape(*q.shape[:3], -1)  # (B, h, w, C)

    def _attend_split(self, qkv: Tensor) -> Tensor:
        """Attend within the windows of a `(B, H, W, 3*C)` grid: `(B, H, W, C)`."""
        batch, height, width, channels = qkv.shape
        output = qkv.new_empty(batch, height, width, channels // 3)
        for rows in whole_and_rest(height, self.window):
            for columns in whole_and_rest(width, self.window):
                self._attend_part(qkv[:, rows, columns], output[:, rows, columns])
        return output

    def _attend_part(self, qkv: Tensor, output: Tensor) -> None:
        """Attend within windows that are all padded alike.

        Args:
            qkv: `(B, H, W, 3*C)`, a part of the grid.
            output: `(B, H, W, C)`, where the result goes.
        """
        h, w = min(qkv.size(1), self.window), min(qkv.size(2), self.window)
        windows = window_view(qkv, h, w)  # (B, rows, columns, h, w, 3*C)
        tokens = windows.reshape(len(windows), -1, h * w, qkv.size(3))
        found = self._attend_alike(tokens, self.window**2 - h * w)
        window_view(output, h, w).copy_(found.view(*windows.shape[:-1], -1))

    def _attend_alike(self, windows: Tensor, missing: int) -> Tensor:
        """Attend within windows of `(B, N, n, 3*C)`, each with `missing` tokens of padding.

        One more token stands for all of these: softmax counts it `missing` times.

        Returns:
            `(B * N, n, C)`.
        """
        batch, count, real, channels = windows.shape
        weight = None
        if missing:
            padding = self.qkv.bias.to(windows.dtype).expand(batch, count, 1, channels)
            windows = torch.cat([windows, padding], dim=2)
            weight = windows.new_zeros(1, 1, 1, real + 1)
            weight[..., -1] = math.log(missing)
        parts = windows.reshape(batch * count, -1, 3, self.heads, channels // 3 // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind()  # (B*N, heads, n, C/heads)
        x = F.scaled_dot_product_attention(q[:, :, :real], k, v, attn_mask=weight)
        return x.transpose(1, 2).reshape(batch * count, real, channels // 3)


class WindowGradient(torch.autograd.Function):
    """What `attend` computes of a token grid, with the backward pass of this file."""

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, bias: Tensor, attend: Callable[[Tensor], Tensor],
        heads: int, window: int,
    ) -> Tensor:  # fmt: skip
        """Return `attend(qkv)`, `(B, H, W, C)`.

        Args:
            ctx: PyTorch's.
            qkv: `(B, H, W, 3*C)`.
            bias: `(3*C,)`, the padding.
            attend: the forward pass; it is not differentiated.
            heads: attention heads.
            window: side of the window in tokens; 0 attends to all tokens.
        """
        ctx.save_for_backward(qkv, bias)
        ctx.heads, ctx.window = heads, window
        return attend(qkv)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of `qkv` and `bias`."""
        qkv, bias = ctx.saved_tensors
        height, width = qkv.shape[1:3]
        side = (ctx.window or height, ctx.window or width)
        last_row, last_column = height - height % side[0], width - width % side[1]
        result = torch.empty_like(qkv)
        padding = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))
        for rows in (slice(0, last_row), slice(last_row, height)):
            for columns in (slice(0, last_column), slice(last_column, width)):
                if rows.start < rows.stop and columns.start < columns.stop:
                    part = (slice(None), rows, columns)
                    padding += _backward(
                        qkv[part], gradient[part], bias, result[part], ctx.heads, side
                    )
        return result, padding.to(bias.dtype), None, None, None


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend by matrix products: `(B, heads, n, d)` queries and `(B, heads, m, d)` keys, values."""
    scores = torch.matmul(q * q.size(-1) ** -0.5, k.transpose(-2, -1))
    return torch.matmul(scores.softmax(dim=-1).to(v.dtype), v)


def _backward(
    qkv: Tensor, gradient: Tensor, bias: Tensor, result: Tensor, heads: int, side: tuple[int, int]
) -> Tensor | float:
    """Write the gradient of windows that are all padded alike; return that of the padding.

    Args:
        qkv: `(B, H, W, 3*C)`, a part of the grid.
        gradient: `(B, H, W, C)`, of that part's output.
        bias: `(3*C,)`.
        result: `(B, H, W, 3*C)`, where the gradient goes.
        heads: attention heads.
        side: height and width of a window.
    """
    height, width = min(qkv.size(1), side[0]), min(qkv.size(2), side[1])
    n = height * width
    missing = side[0] * side[1] - n
    parts = _windows(qkv, height, width, heads, kinds=3)
    d = parts.size(-1)
    tokens = qkv.new_empty(3, parts[0].numel() // (n * d), n + (missing > 0), d)
    tokens[:, :, :n].view(parts.shape).copy_(parts)
    if missing:  # one token stands for all padding, as in the forward pass
        tokens[:, :, n].view(3, -1, heads, d).copy_(bias.view(3, 1, heads, d))
    q, k, v = tokens[0, :, :n], tokens[1], tokens[2]  # (B*N*heads, n, d)
    output = _windows(gradient, height, width, heads, kinds=1)[0].reshape(-1, n, d)
    scores = torch.bmm(q, k.transpose(1, 2)).mul_(d**-0.5)
    if missing:
        scores[..., n] += math.log(missing)
    with torch.enable_grad():  # PyTorch differentiates the softmax in one pass
        differentiable = scores.requires_grad_().softmax(dim=-1)
    of_weights = torch.bmm(output, v.transpose(1, 2))
    of_scores = torch.autograd.grad(differentiable, scores, of_weights)[0].mul_(d**-0.5)
    weights = differentiable.detach()
    del scores, of_weights, differentiable
    found = torch.empty_like(tokens)
    found[0, :, :n] = torch.bmm(of_scores, k)
    found[1] = torch.bmm(of_scores.transpose(1, 2), q)
    found[2] = torch.bmm(weights.transpose(1, 2), output)
    _windows(result, height, width, heads, kinds=3).copy_(found[:, :, :n].view(parts.shape))
    if not missing:
        return 0.0
    found[0, :, n] = 0  # padding asks nothing
    kind = torch.promote_types(bias.dtype, torch.float32)
    return found[:, :, n].reshape(3, -1, heads, d).sum(dim=1, dtype=kind).reshape(-1)


def _windows(x: Tensor, height: int, width: int, heads: int, *, kinds: int) -> Tensor:
    """View `(B, H, W, kinds*heads*d)` as `(kinds, B, rows, columns, heads, height, width, d)`."""
    batch, full_height, full_width, channels = x.shape
    rows, columns = full_height // height, full_width // width
    d = channels // kinds // heads
    x = x.view(batch, rows, height, columns, width, kinds, heads, d)
    return x.permute(5, 0, 1, 3, 6, 2, 4, 7)
