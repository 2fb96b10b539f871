"""The evaluation protocol of the paper (arXiv 2408.08870), by pysodmetrics.

It stretches every probability map to its own range, so an image without the object looks like a
finding. Use it only to compare with published results.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from sam2unet_core.errors import DataError


class PaperProtocol:
    """Accumulates scores image by image; `results` averages them.

    - mDice, mIoU: means over 256 thresholds of the curve averaged over images.
    - S: S-measure (alpha 0.5). wF: weighted F. E: mean E over the thresholds. MAE.
    - adaptive F: beta squared 0.3, at twice the map's mean.
    - IoU: at 0.5 of the stretched map. F: maximum of the averaged curve. The paper does not give
      these thresholds; they are the usual ones for mirror segmentation.
    """

    NAMES = ("mDice", "mIoU", "S", "wF", "adaptive F", "E", "MAE", "IoU", "F")

    def __init__(self) -> None:
        """Create the metrics of pysodmetrics."""
        import py_sod_metrics as sod  # noqa: PLC0415 - takes seconds

        self._dice = sod.DICEHandler(with_dynamic=True, with_adaptive=False)
        self._iou = sod.IOUHandler(with_dynamic=True, with_adaptive=False, with_binary=True)
        self._f = sod.FmeasureHandler(with_dynamic=True, with_adaptive=True, beta=0.3)
        self._curves = sod.FmeasureV2({"dice": self._dice, "iou": self._iou, "f": self._f})
        self._structure = sod.Smeasure()
        self._weighted = sod.WeightedFmeasure()
        self._alignment = sod.Emeasure()
        self._error = sod.MAE()
        self.count = 0

    def add(self, probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> dict[str, float]:
        """Measure one image.

        Args:
            probability: `(h, w)` in [0, 1]; resized to the mask.
            truth: `(H, W)` bool.

        Returns:
            The scores of this image, by NAMES; F at the best threshold for this image.
        """
        grey = stretched(resized(probability, truth.shape))
        mask = truth.astype(np.uint8) * 255
        for each in (self._curves, self._structure, self._weighted, self._alignment, self._error):
            each.step(pred=grey, gt=mask)
        self.count += 1
        return {
            "mDice": float(np.mean(self._dice.dynamic_results[-1])),
            "mIoU": float(np.mean(self._iou.dynamic_results[-1])),
            "S": float(self._structure.sms[-1]),
            "wF": float(self._weighted.weighted_fms[-1]),
            "adaptive F": float(self._f.adaptive_results[-1]),
            "E": float(np.mean(self._alignment.changeable_ems[-1])),
            "MAE": float(self._error.maes[-1]),
            "IoU": float(self._iou.binary_results[-1]),
            "F": float(np.max(self._f.dynamic_results[-1])),
        }

    def results(self) -> dict[str, float]:
        """Return the scores over all images, by NAMES; NaN without images."""
        if not self.count:
            return dict.fromkeys(self.NAMES, math.nan)
        curves = self._curves.get_results()
        return {
            "mDice": float(curves["dice"]["dynamic"].mean()),
            "mIoU": float(curves["iou"]["dynamic"].mean()),
            "S": float(self._structure.get_results()["sm"]),
            "wF": float(self._weighted.get_results()["wfm"]),
            "adaptive F": float(curves["f"]["adaptive"]),
            "E": float(self._alignment.get_results()["em"]["curve"].mean()),
            "MAE": float(self._error.get_results()["mae"]),
            "IoU": float(curves["iou"]["binary"]),
            "F": float(curves["f"]["dynamic"].max()),
        }


def resized(probability: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Resize a map to `size` (height, width): bilinear, corners not aligned, no antialiasing.

    Raises:
        DataError: the map is not two-dimensional.
    """
    if probability.ndim != 2:
        raise DataError(f"a probability map of {probability.shape}, expected (H, W)")
    if probability.shape == tuple(size):
        return probability
    batch = torch.from_numpy(np.ascontiguousarray(probability, np.float32))[None, None]
    found: NDArray[np.float32] = interpolate(
        batch, size=list(size), mode="bilinear", align_corners=False
    )[0, 0].numpy()
    return found


def stretched(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Scale the map from its own range to 0 to 255, truncating."""
    low, high = float(probability.min()), float(probability.max())
    if high == low:
        return np.zeros(probability.shape, np.uint8)
    return ((probability.astype(np.float64) - low) / (high - low) * 255).astype(np.uint8)
