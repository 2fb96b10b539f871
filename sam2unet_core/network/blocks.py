"""Receptive-field block and decoder step of SAM2-UNet (arXiv 2408.08870).

Module names follow the published checkpoints.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class ReceptiveField(nn.Module):
    """Four branches with growing receptive fields, joined and reduced to the decoder's width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.branch0 = nn.Sequential(ConvNorm(channels, width, (1, 1)))
        self.branch1 = _branch(channels, width, 3)
        self.branch2 = _branch(channels, width, 5)
        self.branch3 = _branch(channels, width, 7)
        self.conv_cat = ConvNorm(4 * width, width, (3, 3))
        self.conv_res = ConvNorm(channels, width, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, channels, H, W)` to `(B, width, H, W)`, all values at least 0."""
        branches = [self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)]
        joined = self.conv_cat(join_channels(branches, training=self.training))
        return F.relu(joined + self.conv_res(x))


class ConvNorm(nn.Module):
    """Convolution without bias, then batch normalisation; H and W do not change."""

    def __init__(
        self, channels: int, width: int, kernel: tuple[int, int], dilation: int = 1
    ) -> None:
        super().__init__()
        padding = (dilation * (kernel[0] - 1) // 2, dilation * (kernel[1] - 1) // 2)
        self.conv = nn.Conv2d(
            channels, width, kernel, padding=padding, dilation=dilation, bias=False
        )
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, channels, H, W)` to `(B, width, H, W)`."""
        output: Tensor = self.bn(self.conv(x))
        return output


class Up(nn.Module):
    """Decoder step: upsample by 2, concatenate the skip connection, apply two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = DoubleConv(2 * width, width)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Combine `(B, width, H, W)` and the skip `(B, width, 2H, 2W)`: `(B, width, 2H, 2W)`."""
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
        output: Tensor = self.conv(join_channels([skip, x], training=self.training))
        return output


class DoubleConv(nn.Module):
    """Two times: 3 x 3 convolution, batch normalisation, ReLU."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, channels, H, W)` to `(B, width, H, W)`."""
        output: Tensor = self.double_conv(x)
        return output


def join_channels(maps: list[Tensor], *, training: bool) -> Tensor:
    """Concatenate maps `(B, C, H, W)` to `(B, sum of C, H, W)`.

    In training, hooks make the gradients of channels-last maps contiguous. Without them they are
    strided slices, which slow the backward pass of batch normalisation on a CPU by a factor of six.
    """
    if training and not torch.jit.is_scripting():  # type: ignore[attr-defined]
        for each in maps:
            if each.requires_grad and each.is_contiguous(memory_format=torch.channels_last):
                each.register_hook(_dense)  # type: ignore[no-untyped-call]
    return torch.cat(maps, dim=1)


def _dense(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


def _branch(channels: int, width: int, k: int) -> nn.Sequential:
    return nn.Sequential(
        ConvNorm(channels, width, (1, 1)),
        ConvNorm(width, width, (1, k)),
        ConvNorm(width, width, (k, 1)),
        ConvNorm(width, width, (3, 3), dilation=k),
    )
