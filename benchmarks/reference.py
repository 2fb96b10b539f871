"""The reference of the benchmarks: the network as it was published, step by step.

float32, eager, contiguous layout; windows are padded before the linear layers, which then work on
the padding too; batch normalisation is not folded; the side heads are computed in evaluation too.
It takes over a `SAM2UNet` and returns the same results.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from sam2unet_core.inference.runtimes.runtime import Runtime
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.hiera import Block, WindowAttention


class PaddedAttention(WindowAttention):
    """Attention whose linear layers see the padding of the windows.

    Args:
        attention: gives its layers; they are shared, not copied.
    """

    def __init__(self, attention: WindowAttention) -> None:
        super().__init__(1, 1, heads=attention.heads, window=attention.window, pool=attention.pool)
        self.qkv = attention.qkv
        self.proj = attention.proj

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, H, W, dim)` to `(B, H, W, dim_out)`, or half of H and W if it pools."""
        batch, height, width, _ = x.shape
        side = self.window
        if side:
            x = _cut(x, side)  # (B*N, side, side, dim)
        x = self.proj(self.attend(self.qkv(x)))
        if self.pool:
            height, width, side = height // 2, width // 2, side // 2
        return _join(x, batch, height, width) if side else x


class ReferenceNetwork(nn.Module):
    """A SAM2UNet that computes in the published order.

    Args:
        network: its layers are used and its attention replaced; float32, contiguous.
    """

    def __init__(self, network: SAM2UNet) -> None:
        super().__init__()
        for block in network.modules():
            if isinstance(block, Block):
                block.attn = PaddedAttention(block.attn)
        self.network = network

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Return what `SAM2UNet` returns for `(B, 3, H, W)`; H and W are multiples of 32."""
        network = self.network
        x1, x2, x3, x4 = (
            reduce(features)
            for reduce, features in zip(
                (network.rfb1, network.rfb2, network.rfb3, network.rfb4),
                network.encoder(image),
                strict=True,
            )
        )
        coarse = network.up1(x4, x3)
        side1 = _enlarge(network.side1(coarse), 16)
        middle = network.up2(coarse, x2)
        side2 = _enlarge(network.side2(middle), 8)
        main = _enlarge(network.head(network.up3(middle, x1)), 4)
        return [main, side1, side2] if self.training else main


class ReferenceRuntime(Runtime):
    """Runs a network as it was published, frame by frame; the network is taken over."""

    name = "reference"

    def __init__(self, network: SAM2UNet) -> None:
        self.network = ReferenceNetwork(network).eval()

    def logits(self, images: Tensor) -> Tensor:
        """Return `(N, C, h, w)` logits of `(N, 3, h, w)` float32 images."""
        logits: Tensor = self.network(images.contiguous())
        return logits


def _cut(x: Tensor, side: int) -> Tensor:
    """Pad `(B, H, W, C)` with zeros and cut it into windows `(B * N, side, side, C)`."""
    batch, height, width, channels = x.shape
    x = functional.pad(x, (0, 0, 0, -width % side, 0, -height % side))
    x = x.reshape(batch, -(-height // side), side, -(-width // side), side, channels)
    return x.transpose(2, 3).reshape(-1, side, side, channels)


def _join(windows: Tensor, batch: int, height: int, width: int) -> Tensor:
    """Join windows `(B * N, side, side, C)` to `(B, height, width, C)`, without the padding."""
    side, channels = windows.shape[2:]
    rows, columns = -(-height // side), -(-width // side)
    x = windows.reshape(batch, rows, columns, side, side, channels).transpose(2, 3)
    x = x.reshape(batch, rows * side, columns * side, channels)
    return x[:, :height, :width].contiguous()


def _enlarge(logits: Tensor, factor: float) -> Tensor:
    return functional.interpolate(logits, scale_factor=factor, mode="bilinear")
