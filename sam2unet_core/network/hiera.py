"""Hiera trunk of SAM2 with an adapter before every block (arXiv 2408.00714, 2408.08870).

Module names follow the published checkpoints. Tokens are `(B, H, W, C)` float throughout.
TorchScript reads the annotations, so no `from __future__ import annotations` postpones them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from sam2unet_core.network.variants import Variant

ADAPTER_WIDTH = 32


class Hiera(nn.Module):
    """Computes four feature maps of an image, at strides 4, 8, 16 and 32.

    Args:
        variant: the variant to build.
        drop_path: probability of skipping a branch of the last block in training, per sample; it
            rises linearly from 0 at the first block.
        gradient_checkpointing: fraction of the blocks, starting with the first, whose activations
            are recomputed in the backward pass to save memory; True means all. The first blocks
            need the most memory.

    Attributes:
        position: the position embedding `(1, H/4, W/4, C)` that `remember_position` cached.
    """

    def __init__(
        self, variant: Variant, *, drop_path: float = 0.0, gradient_checkpointing: float = 0.0
    ) -> None:
        super().__init__()
        dim, side = variant.embed_dim, variant.windows[0]
        self.gradient_checkpointing = float(gradient_checkpointing)
        self.windows = variant.windows
        self.position: Tensor | None = None
        self.patch_embed = PatchEmbed(dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, dim, *variant.pos_background))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, dim, side, side))
        blocks = _plan(variant, drop_path)
        self.blocks = nn.ModuleList(AdaptedBlock(block) for block in blocks)
        self.stage_ends = [sum(variant.stages[: i + 1]) - 1 for i in range(4)]
        self._initialise()

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the feature maps of the four stages, finest first.

        Args:
            image: `(B, 3, H, W)` float, normalised RGB; H and W multiples of 32.

        Returns:
            Four `(B, C * 2**i, H / (4 * 2**i), W / (4 * 2**i))` maps.
        """
        x = self.embed(image)
        features: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            recompute = i < self.gradient_checkpointing * len(self.blocks)
            if not torch.jit.is_scripting() and self.training and recompute:  # type: ignore[attr-defined]
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
            if i in self.stage_ends:
                features.append(x.permute(0, 3, 1, 2).to(image.dtype))  # (B, C, H, W)
        return features

    def embed(self, image: Tensor) -> Tensor:
        """Return tokens `(B, H/4, W/4, C)` with position embedding, of an image `(B, 3, H, W)`."""
        x: Tensor = self.patch_embed(image)
        return x + self._position(x.size(1), x.size(2))

    @torch.jit.unused
    def remember_position(self, height: int, width: int) -> None:
        """Cache the position embedding for inference on images of `height` x `width` pixels."""
        with torch.no_grad():
            position = self._position(-(-height // 32) * 8, -(-width // 32) * 8)
            self.position = position.contiguous()  # same layout as tokens: adds 15 times as fast

    def _position(self, height: int, width: int) -> Tensor:
        """Return the position embedding of a token grid, `(1, height, width, C)`."""
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            known = self.position
            if known is not None and known.size(1) == height and known.size(2) == width:
                return known
        background = F.interpolate(self.pos_embed, size=(height, width), mode="bicubic")
        side = self.pos_embed_window.size(2)
        tiled = self.pos_embed_window.repeat(1, 1, height // side, width // side)
        return (background + tiled).permute(0, 2, 3, 1)

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.pos_embed_window, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and "prompt_learn" not in name:
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


class PatchEmbed(nn.Module):
    """Overlapping patches of 7 x 7 pixels at stride 4, as tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=7, stride=4, padding=3)

    def forward(self, image: Tensor) -> Tensor:
        """Return `(B, H/4, W/4, C)` tokens of a `(B, 3, H, W)` image."""
        tokens: Tensor = self.proj(image).permute(0, 2, 3, 1)
        return tokens


class AdaptedBlock(nn.Module):
    """A trunk block behind a bottleneck adapter: block(x + adapter(x))."""

    def __init__(self, block: "Block") -> None:
        super().__init__()
        dim = block.dim
        self.block = block
        self.prompt_learn = nn.Sequential(
            nn.Linear(dim, ADAPTER_WIDTH), nn.GELU(), nn.Linear(ADAPTER_WIDTH, dim), nn.GELU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output tokens; a pooling block halves H and W."""
        output: Tensor = self.block(x + self.prompt_learn(x))
        return output


class Block(nn.Module):
    """Windowed or global attention, then an MLP; a stage's first block halves H and W.

    Args:
        dim: input channels.
        dim_out: output channels.
        heads: attention heads.
        window: side of the attention window in tokens; 0 attends to all tokens.
        pool: whether to max-pool the queries, and so the output, 2 x 2.
        drop_path: probability of skipping each branch in training, per sample.
    """

    def __init__(
        self, dim: int, dim_out: int, *, heads: int, window: int, pool: bool, drop_path: float
    ) -> None:
        super().__init__()
        self.dim = dim
        self.pool = pool
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = WindowAttention(dim, dim_out, heads=heads, window=window, pool=pool)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim_out, eps=1e-6)
        self.mlp = MLP(dim_out)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, H, W, dim)` to `(B, H, W, dim_out)`; pooling halves H and W."""
        shortcut = x
        x = self.norm1(x)
        if self.proj is not None:
            shortcut = self.proj(x).to(x.dtype)
            if self.pool:
                shortcut = pool_tokens(shortcut)
        x = shortcut + self.drop_path(self.attn(x))
        output: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return output


class MLP(nn.Module):
    """Two linear layers with a hidden width of four times the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)])
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., C)` to `(..., C)`."""
        output: Tensor = self.layers[1](self.act(self.layers[0](x)))
        return output


class DropPath(nn.Module):
    """Stochastic depth: skips a residual branch for random samples in training (1603.09382)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """Zero random samples of `(B, ...)` and scale the rest to keep the expected value."""
        if not self.training or self.probability == 0.0:
            return x
        keep = 1.0 - self.probability
        shape = [x.size(0)] + [1] * (x.dim() - 1)
        return x * torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(keep) / keep


def _plan(variant: Variant, drop_path: float) -> list[Block]:
    """Build the blocks of all stages."""
    blocks: list[Block] = []
    for stage, count in enumerate(variant.stages):
        for position in range(count):
            i = len(blocks)
            is_first = position == 0 and stage > 0
            window = variant.windows[stage - 1 if is_first else stage]
            blocks.append(
                Block(
                    variant.channels[stage - 1 if is_first else stage],
                    variant.channels[stage],
                    heads=variant.num_heads * 2**stage,
                    window=0 if i in variant.global_blocks else window,
                    pool=is_first,
                    drop_path=drop_path * i / max(variant.depth - 1, 1),
                )
            )
    return blocks


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
