"""Attention inside windows of a token grid, as in SAM2's Hiera (arXiv 2408.00714).

Tokens are `(B, H, W, C)` float throughout.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sam2unet_core.network.attention_gradient import WindowGradient, plain_attention


class WindowAttention(nn.Module):
    """Multi-head attention inside windows of the token grid.

    A grid that the window does not divide is filled up on the right and at the bottom. The filled
    places are not masked: their keys and values, which equal the bias of `qkv`, take part as they
    do in SAM2. The linear layers run on real tokens only.

    Attributes:
        split_edges: attend in the whole windows, the two edges and the corner one after another,
            each on its real tokens and one more that stands for all that fill its window up. The
            same result with a third of the work on a 22 x 22 grid, but in more steps, so it pays
            on a CPU; it is left out where TorchScript compiles.
    """

    def __init__(self, dim: int, dim_out: int, *, heads: int, window: int, pool: bool) -> None:
        """Build the layers."""
        super().__init__()
        self.heads = heads
        self.window = window
        self.pool = pool
        self.split_edges = False
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, H, W, dim)` to `(B, H, W, dim_out)`, or half of H and W if it pools."""
        height, width = x.size(1), x.size(2)
        qkv = self.qkv(x)
        if not torch.jit.is_scripting() and self._trains_on_cpu(qkv) and not self.pool:  # type: ignore[attr-defined]
            learning: Tensor = self.proj(self._attend_learning(qkv))
            return learning
        if not torch.jit.is_scripting() and self.split_edges and self._has_edges(height, width):  # type: ignore[attr-defined]
            split: Tensor = self.proj(self._attend_split(qkv))
            return split
        if self.window > 0:
            qkv = _to_windows(qkv, self.window, self.qkv.bias)  # (B*N, w, w, 3*C)
        x = self._attend(qkv)
        side = self.window
        if self.pool:
            height, width, side = height // 2, width // 2, side // 2
        if self.window > 0:
            x = _from_windows(x, side, height, width)
        output: Tensor = self.proj(x)
        return output

    @torch.jit.unused
    def _trains_on_cpu(self, qkv: Tensor) -> bool:
        """Whether a backward pass will follow on a CPU."""
        return self.training and qkv.requires_grad and qkv.device.type == "cpu"

    @torch.jit.unused
    def _attend_learning(self, qkv: Tensor) -> Tensor:
        """Attend as `_attend_split` where there are windows, and keep `qkv` alone."""
        attend = self._attend_split if self.window > 0 else self._attend
        output: Tensor = WindowGradient.apply(  # type: ignore[no-untyped-call]
            qkv, self.qkv.bias, attend, self.heads, self.window
        )
        return output

    def _has_edges(self, height: int, width: int) -> bool:
        """Whether windows reach beyond the grid. Those that pool are few and stay whole."""
        uneven = self.window > 0 and (height % self.window > 0 or width % self.window > 0)
        return uneven and not self.pool

    @torch.jit.unused
    def _attend_split(self, qkv: Tensor) -> Tensor:
        """Attend within the windows of a `(B, H, W, 3*C)` grid, filled up or not, as `_attend`."""
        batch, height, width, channels = qkv.shape
        output = qkv.new_empty(batch, height, width, channels // 3)
        for rows in whole_and_rest(height, self.window):
            for columns in whole_and_rest(width, self.window):
                self._attend_part(qkv[:, rows, columns], output[:, rows, columns])
        return output

    def _attend_part(self, qkv: Tensor, output: Tensor) -> None:
        """Attend within windows that are all filled up alike.

        Args:
            qkv: `(B, H, W, 3*C)`, a part of the grid.
            output: `(B, H, W, C)`, where the result goes.
        """
        h, w = min(qkv.size(1), self.window), min(qkv.size(2), self.window)
        windows = window_view(qkv, h, w)  # (B, rows, columns, h, w, 3*C)
        tokens = windows.reshape(len(windows), -1, h * w, qkv.size(3))
        found = self.attend_alike(tokens, self.window**2 - h * w)
        window_view(output, h, w).copy_(found.view(*windows.shape[:-1], -1))

    @torch.jit.unused
    def attend_alike(self, windows: Tensor, missing: int) -> Tensor:
        """Attend within windows of `(B, N, n, 3*C)`, each with `missing` places filled up.

        One more token stands for all of these: softmax counts it `missing` times.

        Returns:
            `(B * N, n, C)`.
        """
        batch, count, real, channels = windows.shape
        weight = None
        if missing:
            filling = self.qkv.bias.to(windows.dtype).expand(batch, count, 1, channels)
            windows = torch.cat([windows, filling], dim=2)
            weight = windows.new_zeros(1, 1, 1, real + 1)
            weight[..., -1] = math.log(missing)
        parts = windows.reshape(batch * count, -1, 3, self.heads, channels // 3 // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind()  # (B*N, heads, n, C/heads)
        x = F.scaled_dot_product_attention(q[:, :, :real], k, v, attn_mask=weight)
        return x.transpose(1, 2).reshape(batch * count, real, channels // 3)

    def _attend(self, qkv: Tensor) -> Tensor:
        """Attend within each `(h, w)` grid of `(B, h, w, 3*C)` queries, keys and values."""
        batch, height, width, _ = qkv.shape
        q, k, v = qkv.chunk(3, dim=-1)
        if self.pool:
            q = pool_tokens(q)
            height, width = height // 2, width // 2
        q, k, v = self._split(q), self._split(k), self._split(v)
        if not torch.jit.is_scripting() and self.pool and self._trains_on_cpu(q):  # type: ignore[attr-defined]
            x = plain_attention(q, k, v)
        else:
            x = F.scaled_dot_product_attention(q, k, v)
        return x.transpose(1, 2).reshape(batch, height, width, -1)  # (B, h, w, C)

    def _split(self, x: Tensor) -> Tensor:
        """Reshape `(B, h, w, C)` to `(B, heads, h*w, C/heads)`."""
        batch, height, width, channels = x.shape
        shape = [batch, height * width, self.heads, channels // self.heads]
        return x.reshape(shape).transpose(1, 2)


def whole_and_rest(length: int, window: int) -> list[slice]:
    """Return what whole windows cover of a side, and what is left; neither is empty."""
    whole = length - length % window
    return [span for span in (slice(0, whole), slice(whole, length)) if span.start < span.stop]


def pool_tokens(x: Tensor) -> Tensor:
    """Take the maximum of each 2 x 2 tokens: `(B, H, W, C)` to `(B, H/2, W/2, C)`."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), 2, 2).permute(0, 2, 3, 1)


def _to_windows(x: Tensor, side: int, filling: Tensor) -> Tensor:
    """Cut `(B, H, W, C)` into `(B * N, side, side, C)`; what is missing takes `filling`, `(C,)`."""
    batch, height, width, channels = x.shape
    filling = filling.to(x.dtype)
    if width % side > 0:
        right = filling.expand(batch, height, -width % side, channels)
        x = torch.cat([x, right], dim=2)
    if height % side > 0:
        below = filling.expand(batch, -height % side, x.size(2), channels)
        x = torch.cat([x, below], dim=1)
    rows, columns = (height + side - 1) // side, (width + side - 1) // side
    x = x.reshape(batch, rows, side, columns, side, channels)
    return x.transpose(2, 3).reshape(-1, side, side, channels)


def window_view(x: Tensor, height: int, width: int) -> Tensor:
    """View `(B, H, W, C)` as `(B, H/height, W/width, height, width, C)`."""
    b, full_height, full_width, channels = x.shape
    shape = (b, full_height // height, height, full_width // width, width, channels)
    return x.view(shape).transpose(2, 3)


def _from_windows(windows: Tensor, side: int, height: int, width: int) -> Tensor:
    """Put `(B * N, side, side, C)` together again and cut off what was filled: `(B, H, W, C)`."""
    rows, columns = (height + side - 1) // side, (width + side - 1) // side
    channels = windows.size(3)
    x = windows.reshape(-1, rows, columns, side, side, channels).transpose(2, 3)
    x = x.reshape(-1, rows * side, columns * side, channels)
    return x[:, :height, :width].contiguous()  # a view would send `proj` to a slow batched product
