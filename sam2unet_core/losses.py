"""The structure loss of the paper, and its sum over the supervised maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sam2unet_core.errors import DataError


class StructureLoss(nn.Module):
    """Cross-entropy plus border-weighted IoU (arXiv 2408.08870, section 3.4, after F3Net).

    With target m, probability p and the pixel weight `w = 1 + 5 |mean of m over 31x31 - m|`
    (the mean counts zeros beyond the image's edge):

        IoU term = 1 - (sum(w p m) + 1) / (sum(w (p + m)) - sum(w p m) + 1)

    per image and channel, averaged over both. The cross-entropy is the plain mean over all
    pixels, because that is what the published training code ends up computing; with
    `weighted_bce` it is sum(w bce) / sum(w) per image and channel, the formula of the paper.

    Args:
        activation: `sigmoid` takes every channel as a two-class problem of its own. `softmax`
            takes channel 0 as background, channels 1 to K as the target's K classes: the
            cross-entropy is the categorical one (weighted, a pixel takes its largest w over the
            classes) and the IoU term covers the K foreground channels.
        weighted_bce: weight the cross-entropy too.
    """

    def __init__(
        self,
        *,
        activation: Literal["sigmoid", "softmax"] = "sigmoid",
        weighted_bce: bool = False,
    ) -> None:
        """Raise DataError where `activation` is neither of the two."""
        super().__init__()
        if activation not in ("sigmoid", "softmax"):
            raise DataError(f"activation is {activation!r}, expected sigmoid or softmax")
        self.activation = activation
        self.weighted_bce = weighted_bce

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss, a float32 scalar; half-precision logits are taken to float32 first.

        Args:
            logits: `(B, C, H, W)` floating point; C is K for sigmoid, K + 1 for softmax.
            target: `(B, K, H, W)` foreground of each class in [0, 1]; soft labels are allowed.
            weight: `border_weight(target)`, where several losses share one target.

        Raises:
            DataError: the shapes do not fit one another.
        """
        self._check(logits, target)
        logits, target = logits.float(), target.float()
        if weight is None:
            weight = border_weight(target)
        if self.activation == "softmax":
            entropy = _categorical_entropy(logits, target)
            entropy_weight = weight.amax(dim=1, keepdim=True)  # (B, 1, H, W)
            probability = logits.softmax(dim=1)[:, 1:]  # (B, K, H, W)
        else:
            entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
            entropy_weight = weight
            probability = logits.sigmoid()
        if self.weighted_bce:
            entropy = _sum(entropy_weight * entropy) / _sum(entropy_weight)
        return entropy.mean() + _weighted_iou(probability, target, weight=weight).mean()

    def _check(self, logits: Tensor, target: Tensor) -> None:
        extra = int(self.activation == "softmax")
        if logits.ndim != 4 or target.ndim != 4:
            raise DataError(
                f"logits are {tuple(logits.shape)} and the target {tuple(target.shape)}, "
                "expected (B, C, H, W) for both"
            )
        batch, channels, height, width = target.shape
        expected = (batch, channels + extra, height, width)
        if tuple(logits.shape) != expected:
            raise DataError(
                f"logits are {tuple(logits.shape)} for a target of {tuple(target.shape)}; "
                f"{self.activation} expects {expected}"
            )


class DeepSupervisionLoss(nn.Module):
    """The sum of one loss over all the maps a network returns in training, unweighted.

    Args:
        loss: takes `(logits, target)` and returns a scalar.
    """

    def __init__(self, loss: nn.Module) -> None:
        """Keep `loss`."""
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """Return the summed loss, a scalar; a single tensor counts as one map.

        Args:
            logits: `(B, C, H, W)`, or several of them, each at the target's size.
            target: `(B, K, H, W)` in [0, 1].

        Raises:
            DataError: there is no map at all.
        """
        maps = [logits] if isinstance(logits, Tensor) else list(logits)
        if not maps:
            raise DataError("the network returned no map, expected at least one")
        shared: tuple[Tensor, ...] = ()
        if isinstance(self.loss, StructureLoss) and target.ndim == 4:
            shared = (border_weight(target.float()),)
        return torch.stack([self.loss(each, target, *shared) for each in maps]).sum()


def border_weight(target: Tensor) -> Tensor:
    """Return `1 + 5 |31x31 mean of target - target|`, `(B, K, H, W)`, from 1 up to 6."""
    # a box mean is separable: rows, then columns, takes a fifteenth of the time of 31x31
    rows = functional.avg_pool2d(target, kernel_size=(31, 1), stride=1, padding=(15, 0))
    mean = functional.avg_pool2d(rows, kernel_size=(1, 31), stride=1, padding=(0, 15))
    return 1 + 5 * (mean - target).abs()


def _categorical_entropy(logits: Tensor, target: Tensor) -> Tensor:
    background = (1 - target.sum(dim=1, keepdim=True)).clamp(0, 1)
    every_class = torch.cat([background, target], dim=1)  # (B, K + 1, H, W)
    return -(every_class * logits.log_softmax(dim=1)).sum(dim=1, keepdim=True)


def _weighted_iou(probability: Tensor, target: Tensor, *, weight: Tensor) -> Tensor:
    intersection = _sum(weight * probability * target)
    total = _sum(weight * (probability + target))
    return 1 - (intersection + 1) / (total - intersection + 1)


def _sum(values: Tensor) -> Tensor:
    return values.sum(dim=(2, 3))  # (B, channels)
