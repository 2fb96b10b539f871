"""Attention for training on a CPU: a fast forward pass, and a backward pass of matrix products.

Only queries, keys and values are kept for the backward pass, as the linear layer put them out:
neither windows nor what fills them up nor the weights of attention. PyTorch's own backward pass in
16 bits takes three to eight times as long on a CPU, and its plain one keeps float32 copies of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


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
            bias: `(3*C,)`, what fills windows up.
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
        filling = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))
        for rows in (slice(0, last_row), slice(last_row, height)):
            for columns in (slice(0, last_column), slice(last_column, width)):
                if rows.start < rows.stop and columns.start < columns.stop:
                    part = (slice(None), rows, columns)
                    filling += _backward(
                        qkv[part], gradient[part], bias, result[part], ctx.heads, side
                    )
        return result, filling.to(bias.dtype), None, None, None


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend by matrix products: `(B, heads, n, d)` queries and `(B, heads, m, d)` keys, values."""
    scores = torch.matmul(q * q.size(-1) ** -0.5, k.transpose(-2, -1))
    return torch.matmul(scores.softmax(dim=-1).to(v.dtype), v)


def _backward(
    qkv: Tensor, gradient: Tensor, bias: Tensor, result: Tensor, heads: int, side: tuple[int, int]
) -> Tensor | float:
    """Write the gradient of windows that are all filled up alike; return that of the filling.

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
    if missing:  # one token stands for all, as in the forward pass
        tokens[:, :, n].view(3, -1, heads, d).copy_(bias.view(3, 1, heads, d))
    q, k, v = tokens[0, :, :n], tokens[1], tokens[2]  # (B*N*heads, n, d)
    output = _windows(gradient, height, width, heads, kinds=1)[0].reshape(-1, n, d)
    scores = torch.bmm(q, k.transpose(1, 2)).mul_(d**-0.5)
    if missing:
        scores[..., n] += math.log(missing)
    weights = scores.softmax(dim=-1)
    of_weights = torch.bmm(output, v.transpose(1, 2))
    of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype).mul_(d**-0.5)
    del scores, of_weights
    found = torch.empty_like(tokens)
    found[0, :, :n] = torch.bmm(of_scores, k)
    found[1] = torch.bmm(of_scores.transpose(1, 2), q)
    found[2] = torch.bmm(weights.transpose(1, 2), output)
    _windows(result, height, width, heads, kinds=3).copy_(found[:, :, :n].view(parts.shape))
    if not missing:
        return 0.0
    found[0, :, n] = 0  # what fills up asks nothing
    kind = torch.promote_types(bias.dtype, torch.float32)
    return found[:, :, n].reshape(3, -1, heads, d).sum(dim=1, dtype=kind).reshape(-1)


def _windows(x: Tensor, height: int, width: int, heads: int, *, kinds: int) -> Tensor:
    """View `(B, H, W, kinds*heads*d)` as `(kinds, B, rows, columns, heads, height, width, d)`."""
    batch, full_height, full_width, channels = x.shape
    rows, columns = full_height // height, full_width // width
    d = channels // kinds // heads
    x = x.view(batch, rows, height, columns, width, kinds, heads, d)
    return x.permute(5, 0, 1, 3, 6, 2, 4, 7)
