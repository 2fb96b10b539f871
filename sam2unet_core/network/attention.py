"""Attention inside windows of a token grid, as in SAM2's Hiera (arXiv 2408.00714).

Tokens are `(B, H, W, C)` float throughout.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class WindowAttention(nn.Module):
    """Multi-head attention inside windows of the token grid.

    A grid that the window does not divide is padded on the right and at the bottom. Padding is not
    masked: its keys and values, which equal the bias of `qkv`, take part as they do in SAM2. The
    linear layers run on real tokens only.
    """

    def __init__(self, dim: int, dim_out: int, *, heads: int, window: int, pool: bool) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.pool = pool
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, H, W, dim)` to `(B, H, W, dim_out)`, or half of H and W if it pools."""
        height, width = x.size(1), x.size(2)
        qkv = self.qkv(x)
        if self.window > 0:
            qkv = _to_windows(qkv, self.window, self.qkv.bias)  # (B*N, w, w, 3*C)
        x = self.attend(qkv)
        side = self.window
        if self.pool:
            height, width, side = height // 2, width // 2, side // 2
        if self.window > 0:
            x = _from_windows(x, side, height, width)
        output: Tensor = self.proj(x)
        return output

    def attend(self, qkv: Tensor) -> Tensor:
        """Attend within each `(h, w)` grid of `(B, h, w, 3*C)` queries, keys and values."""
        batch, height, width, _ = qkv.shape
        q, k, v = qkv.chunk(3, dim=-1)
        if self.pool:
            q = pool_tokens(q)
            height, width = height // 2, width // 2
        x = F.scaled_dot_product_attention(self.split(q), self.split(k), self.split(v))
        return x.transpose(1, 2).reshape(batch, height, width, -1)  # (B, h, w, C)

    def split(self, x: Tensor) -> Tensor:
        """Reshape `(B, h, w, C)` to `(B, heads, h*w, C/heads)`."""
        batch, height, width, channels = x.shape
        shape = [batch, height * width, self.heads, channels // self.heads]
        return x.reshape(shape).transpose(1, 2)


def pool_tokens(x: Tensor) -> Tensor:
    """Take the maximum of each 2 x 2 tokens: `(B, H, W, C)` to `(B, H/2, W/2, C)`."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), 2, 2).permute(0, 2, 3, 1)


def _to_windows(x: Tensor, side: int, padding: Tensor) -> Tensor:
    """Cut `(B, H, W, C)` into `(B * N, side, side, C)`, padded with `padding`, `(C,)`."""
    batch, height, width, channels = x.shape
    padding = padding.to(x.dtype)
    if width % side > 0:
        right = padding.expand(batch, height, -width % side, channels)
        x = torch.cat([x, right], dim=2)
    if height % side > 0:
        below = padding.expand(batch, -height % side, x.size(2), channels)
        x = torch.cat([x, below], dim=1)
    rows, columns = (height + side - 1) // side, (width + side - 1) // side
    x = x.reshape(batch, rows, side, columns, side, channels)
    return x.transpose(2, 3).reshape(-1, side, side, channels)


def _from_windows(windows: Tensor, side: int, height: int, width: int) -> Tensor:
    """Join windows `(B * N, side, side, C)` to `(B, H, W, C)` and crop the padding."""
    rows, columns = (height + side - 1) // side, (width + side - 1) // side
    channels = windows.size(3)
    x = windows.reshape(-1, rows, columns, side, side, channels).transpose(2, 3)
    x = x.reshape(-1, rows * side, columns * side, channels)
    return x[:, :height, :width].contiguous()  # `proj` is slow on a view
