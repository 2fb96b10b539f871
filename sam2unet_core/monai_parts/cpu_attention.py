"""Attention for training on a CPU: a fast forward pass, and a backward pass of matrix products.

For the backward pass it saves only queries, keys and values as the linear layer returns them: no
windows, no padding and no attention weights. On a CPU, PyTorch's fused backward pass in 16 bits
takes three to eight times as long, and its unfused one keeps float32 copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sam2unet_core.inference.cpu.prepare import whole_and_rest, window_view
from sam2unet_core.network.hiera import Block, WindowAttention, pool_tokens


def attend_fast_on_cpu(network: nn.Module) -> None:
    """Replace the attention layers of a network on a CPU with `CPUTrainingAttention`.

    Weights and keys stay the same; eval mode is unchanged.
    """
    for module in list(network.modules()):
        if isinstance(module, Block) and next(module.parameters()).device.type == "cpu":
            module.attn = CPUTrainingAttention(module.attn)


class CPUTrainingAttention(WindowAttention):
    """Multi-head attention inside windows; see `WindowAttention`.

    Whole windows, the windows at the two edges and the one in the corner are computed in turn. Each
    attends to its real tokens and one token that represents all of its padding. On a 22 x 22 grid
    that is a third of the work.

    Args:
        other: the attention layer to replace; its linear layers are shared.
    """

    def __init__(self, other: WindowAttention) -> None:
        nn.Module.__init__(self)
        self.heads, self.window, self.pool = other.heads, other.window, other.pool
        self.qkv, self.proj = other.qkv, other.proj

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, H, W, dim)` to `(B, H, W, dim_out)`; pooling halves H and W."""
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
        """Attend within the windows of a part of the grid where all have the same padding.

        Args:
            qkv: `(B, H, W, 3*C)`, the part of the grid.
            output: `(B, H, W, C)`, where the result is written.
        """
        h, w = min(qkv.size(1), self.window), min(qkv.size(2), self.window)
        windows = window_view(qkv, h, w)  # (B, rows, columns, h, w, 3*C)
        tokens = windows.reshape(len(windows), -1, h * w, qkv.size(3))
        found = self._attend_padded(tokens, self.window**2 - h * w)
        window_view(output, h, w).copy_(found.view(*windows.shape[:-1], -1))

    def _attend_padded(self, windows: Tensor, padding_count: int) -> Tensor:
        """Attend within windows of `(B, N, n, 3*C)`, each with `padding_count` tokens of padding.

        One token represents them all: a bias makes softmax count it `padding_count` times.

        Returns:
            `(B * N, n, C)`.
        """
        batch, count, real, channels = windows.shape
        bias = None
        if padding_count:
            padding = self.qkv.bias.to(windows.dtype).expand(batch, count, 1, channels)
            windows = torch.cat([windows, padding], dim=2)
            bias = windows.new_zeros(1, 1, 1, real + 1)
            bias[..., -1] = math.log(padding_count)
        parts = windows.reshape(batch * count, -1, 3, self.heads, channels // 3 // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind()  # (B*N, heads, n, C/heads)
        x = F.scaled_dot_product_attention(q[:, :, :real], k, v, attn_mask=bias)
        return x.transpose(1, 2).reshape(batch * count, real, channels // 3)


class WindowGradient(torch.autograd.Function):
    """Runs `attend` on a token grid and replaces its backward pass."""

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, bias: Tensor, attend: Callable[[Tensor], Tensor],
        heads: int, window: int,
    ) -> Tensor:  # fmt: skip
        """Return `attend(qkv)`, `(B, H, W, C)`.

        Args:
            ctx: PyTorch's context.
            qkv: `(B, H, W, 3*C)`.
            bias: `(3*C,)`, the value of padding tokens.
            attend: the forward pass, which is not differentiated.
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
    """Attend by matrix products: queries `(B, heads, n, d)`, keys and values `(B, heads, m, d)`."""
    scores = torch.matmul(q * q.size(-1) ** -0.5, k.transpose(-2, -1))
    return torch.matmul(scores.softmax(dim=-1).to(v.dtype), v)


def _backward(
    qkv: Tensor, gradient: Tensor, bias: Tensor, result: Tensor, heads: int, side: tuple[int, int]
) -> Tensor | float:
    """Compute the gradient of `qkv` in a part of the grid where all windows have the same padding.

    Args:
        qkv: `(B, H, W, 3*C)`, the part of the grid.
        gradient: `(B, H, W, C)`, the gradient of its output.
        bias: `(3*C,)`, the value of padding tokens.
        result: `(B, H, W, 3*C)`, where the gradient of `qkv` is written.
        heads: attention heads.
        side: height and width of a window.

    Returns:
        The gradient of the padding, `(3*C,)`, or 0 without padding.
    """
    height, width = min(qkv.size(1), side[0]), min(qkv.size(2), side[1])
    n = height * width
    padding_count = side[0] * side[1] - n
    parts = _windows(qkv, height, width, heads, kinds=3)
    d = parts.size(-1)
    tokens = qkv.new_empty(3, parts[0].numel() // (n * d), n + (padding_count > 0), d)
    tokens[:, :, :n].view(parts.shape).copy_(parts)
    if padding_count:  # one token represents all padding, as in the forward pass
        tokens[:, :, n].view(3, -1, heads, d).copy_(bias.view(3, 1, heads, d))
    q, k, v = tokens[0, :, :n], tokens[1], tokens[2]  # (B*N*heads, n, d)
    output = _windows(gradient, height, width, heads, kinds=1)[0].reshape(-1, n, d)
    scores = torch.bmm(q, k.transpose(1, 2)).mul_(d**-0.5)
    if padding_count:
        scores[..., n] += math.log(padding_count)
    with torch.enable_grad():  # PyTorch's softmax gradient is fused
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
    if not padding_count:
        return 0.0
    found[0, :, n] = 0  # padding has no queries
    kind = torch.promote_types(bias.dtype, torch.float32)
    return found[:, :, n].reshape(3, -1, heads, d).sum(dim=1, dtype=kind).reshape(-1)


def _windows(x: Tensor, height: int, width: int, heads: int, *, kinds: int) -> Tensor:
    """View `(B, H, W, kinds*heads*d)` as `(kinds, B, rows, columns, heads, height, width, d)`."""
    batch, full_height, full_width, channels = x.shape
    rows, columns = full_height // height, full_width // width
    d = channels // kinds // heads
    x = x.view(batch, rows, height, columns, width, kinds, heads, d)
    return x.permute(5, 0, 1, 3, 6, 2, 4, 7)
