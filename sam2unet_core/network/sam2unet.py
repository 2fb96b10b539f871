"""SAM2-UNet: a frozen SAM2 trunk with adapters and a small U-shaped decoder (arXiv 2408.08870).

Module names follow the published checkpoints.
TorchScript reads the annotations, so no `from __future__ import annotations` postpones them.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sam2unet_core.network.hiera import Hiera
from sam2unet_core.network.keys import is_trunk_key
from sam2unet_core.network.variants import Variant, find_variant


class SAM2UNet(nn.Module):
    """The segmentation network.

    Images can have any size from 32 x 32. They are zero-padded on the right and at the bottom to
    multiples of 32, and the output is cropped to the size of the input.

    Args:
        variant: a name in `VARIANTS` or a custom `Variant`.
        num_classes: output channels.
        train_trunk: whether to train the trunk; None freezes it where SAM2 publishes weights.
        gradient_checkpointing: fraction of the trunk's blocks whose activations are recomputed in
            training to save memory; True means all.
        drop_path: probability of skipping a branch of the last block in training; it rises
            linearly from 0 at the first block.
        adapter_init: `trunc_normal` (std 0.02, zero bias; the authors' fix for NaN losses) or
            `default` (PyTorch's default for linear layers, as first published).
    """

    trunk_sha256: str | None = None
    """Hash of the trunk before `round_frozen`; None if it was not rounded."""

    __jit_unused_properties__ = ("trunk_is_frozen",)

    def __init__(
        self,
        variant: str | Variant = "large",
        *,
        num_classes: int = 1,
        train_trunk: bool | None = None,
        gradient_checkpointing: float = 0.0,
        drop_path: float = 0.0,
        adapter_init: Literal["trunc_normal", "default"] = "trunc_normal",
    ) -> None:
        super().__init__()
        self.variant = find_variant(variant)
        self.num_classes = num_classes
        width = self.variant.width
        c1, c2, c3, c4 = self.variant.channels
        self.encoder = Hiera(
            self.variant, drop_path=drop_path, gradient_checkpointing=gradient_checkpointing
        )
        self.rfb1 = ReceptiveField(c1, width)
        self.rfb2 = ReceptiveField(c2, width)
        self.rfb3 = ReceptiveField(c3, width)
        self.rfb4 = ReceptiveField(c4, width)
        self.up1 = Up(width)
        self.up2 = Up(width)
        self.up3 = Up(width)
        self.side1 = nn.Conv2d(width, num_classes, 1)
        self.side2 = nn.Conv2d(width, num_classes, 1)
        self.head = nn.Conv2d(width, num_classes, 1)
        _initialise_adapters(self, adapter_init)
        if not (train_trunk if train_trunk is not None else not self.variant.sam2):
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(not is_trunk_key(name))

    @property
    def trunk_is_frozen(self) -> bool:
        """Whether no weight of the trunk is trained (adapters do not count)."""
        trunk = (p for name, p in self.named_parameters() if is_trunk_key(name))
        return not any(p.requires_grad for p in trunk)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits at the size of the image.

        Args:
            image: `(B, 3, H, W)` float, normalised RGB; H and W at least 32.

        Returns:
            `(B, num_classes, H, W)` logits in eval mode; in training mode a list
            `[main, side1, side2]` of three such maps. TorchScript allows only one return type, so
            the annotation is that of eval mode.

        Raises:
            ValueError: the image has the wrong number of dimensions or channels, or is too small.
        """
        height, width = image.size(-2), image.size(-1)
        x1, x2, x3, x4 = self._reduced_features(image)
        coarse = self.up1(x4, x3)
        middle = self.up2(coarse, x2)
        fine = self.up3(middle, x1)
        main = _enlarge(self.head(fine), 4.0, height, width)
        if not torch.jit.is_scripting() and self.training:  # type: ignore[attr-defined]
            side1 = _enlarge(self.side1(coarse), 16.0, height, width)
            side2 = _enlarge(self.side2(middle), 8.0, height, width)
            return [main, side1, side2]  # type: ignore[return-value]
        return main

    def _reduced_features(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the four feature maps at the decoder's width, finest first."""
        _check(image)
        x = F.pad(image, [0, -image.size(3) % 32, 0, -image.size(2) % 32])
        x1, x2, x3, x4 = self.encoder(x)
        return self.rfb1(x1), self.rfb2(x2), self.rfb3(x3), self.rfb4(x4)


def _check(image: Tensor) -> None:
    if image.dim() != 4 or image.size(1) != 3:
        raise ValueError(f"the image is {image.shape}, expected (B, 3, H, W)")
    if image.size(2) < 32 or image.size(3) < 32:
        raise ValueError(
            f"the image is {image.size(2)} x {image.size(3)} pixels, expected at least 32 x 32; "
            "enlarge it first"
        )


def _enlarge(logits: Tensor, factor: float, height: int, width: int) -> Tensor:
    """Enlarge `(B, K, h, w)` by `factor` and crop it to `(B, K, height, width)`."""
    logits = F.interpolate(logits, scale_factor=factor, mode="bilinear", align_corners=False)
    return logits[:, :, :height, :width]


def _initialise_adapters(model: SAM2UNet, method: str) -> None:
    if method not in ("trunc_normal", "default"):
        raise ValueError(f"adapter_init is {method!r}, expected 'trunc_normal' or 'default'")
    for name, module in model.named_modules():
        if method == "trunc_normal" and "prompt_learn" in name and isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)


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
