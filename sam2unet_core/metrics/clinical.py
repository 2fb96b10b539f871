"""Scores of one class in one image: overlap, surface distances, lesions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from sam2unet_core.errors import DataError


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class in one image; NaN where a score is undefined.

    Attributes:
        dice: 2 tp / (2 tp + fp + fn); 1 if mask and prediction are both empty.
        iou: tp / (tp + fp + fn); 1 if both are empty.
        precision: tp / (tp + fp); NaN if the prediction is empty.
        recall: tp / (tp + fn); NaN if the mask is empty.
        specificity: tn / (tn + fp); NaN if the mask fills the image.
        hd95: 95th percentile Hausdorff distance, the larger of the two directions; NaN if the
            mask or the prediction is empty. In mm if the spacing is known, else in pixels.
        assd: average symmetric surface distance; likewise.
        truth: whether the mask has foreground.
        predicted: whether the prediction has foreground.
        lesions: lesion counts.
    """

    dice: float
    iou: float
    precision: float
    recall: float
    specificity: float
    hd95: float
    assd: float
    truth: bool
    predicted: bool
    lesions: LesionCounts


def score_class(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    *,
    spacing_mm: Sequence[float] | None = None,
    lesion_iou: float = 0.5,
) -> ClassScores:
    """Score one class in one image or volume.

    Args:
        prediction: `(H, W)` or `(D, H, W)` bool.
        truth: the mask, of the same shape.
        spacing_mm: pixel pitch along each axis in mm; None gives distances in pixels.
        lesion_iou: `min_iou` of `count_lesions`.

    Raises:
        DataError: the shapes or the number of axes differ.
    """
    if prediction.shape != truth.shape:
        raise DataError(
            f"a prediction of {prediction.shape} for a mask of {truth.shape}; expected equal shapes"
        )
    if spacing_mm is not None and len(spacing_mm) != truth.ndim:
        raise DataError(f"spacing {tuple(spacing_mm)}, expected {truth.ndim} values, one per axis")
    tp, fp, tn, fn = _confusion(prediction, truth)
    hd95, assd = math.nan, math.nan
    if prediction.any() and truth.any():
        hd95, assd = _surface_distances(prediction, truth, spacing_mm=spacing_mm)
    return ClassScores(
        dice=_share(2 * tp, 2 * tp + fp + fn, empty=1.0),
        iou=_share(tp, tp + fp + fn, empty=1.0),
        precision=_share(tp, tp + fp),
        recall=_share(tp, tp + fn),
        specificity=_share(tn, tn + fp),
        hd95=hd95,
        assd=assd,
        truth=bool(truth.any()),
        predicted=bool(prediction.any()),
        lesions=count_lesions(prediction, truth, min_iou=lesion_iou),
    )


def _confusion(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> tuple[int, int, int, int]:
    """Return pixel counts (tp, fp, tn, fn); integers, since float32 is exact to 16 million only."""
    tp = int(np.count_nonzero(prediction & truth))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(truth)) - tp
    return tp, fp, truth.size - tp - fp - fn, fn


def _share(part: int, whole: int, *, empty: float = math.nan) -> float:
    return part / whole if whole else empty


def _surface_distances(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    *,
    spacing_mm: Sequence[float] | None,
) -> tuple[float, float]:
    """Return (95th percentile Hausdorff, average symmetric surface distance) by MONAI."""
    from monai.metrics import (  # noqa: PLC0415 - takes seconds
        compute_average_surface_distance,
        compute_hausdorff_distance,
    )

    batch = [torch.from_numpy(each)[None, None] for each in (prediction, truth)]  # (1, 1, H, W)
    spacing = None if spacing_mm is None else [float(each) for each in spacing_mm]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's, about its own call
        hd95 = compute_hausdorff_distance(
            *batch, include_background=True, percentile=95, spacing=spacing
        )
        assd = compute_average_surface_distance(
            *batch, include_background=True, symmetric=True, spacing=spacing
        )
    return float(hd95), float(assd)


@dataclass(frozen=True)
class LesionCounts:
    """Lesions of one class in one image.

    Attributes:
        truth: lesions in the mask.
        predicted: lesions in the prediction.
        detected: lesions of the mask that match one in the prediction.
    """

    truth: int
    predicted: int
    detected: int

    @property
    def missed(self) -> int:
        """Lesions of the mask without a match."""
        return self.truth - self.detected

    @property
    def false(self) -> int:
        """Predicted lesions without a match."""
        return self.predicted - self.detected


def count_lesions(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], *, min_iou: float = 0.5
) -> LesionCounts:
    """Match the lesions of a prediction with those of the mask.

    A lesion is a connected component, diagonal neighbours included (8 in an image, 26 in a
    volume). A lesion of the mask is detected if a predicted one overlaps it with an IoU of at least
    `min_iou`. Matches are one to one; the matching has the maximum number of pairs.

    Args:
        prediction: `(H, W)` or `(D, H, W)` bool.
        truth: the mask, of the same shape.
        min_iou: above 0, up to 1.
    """
    neighbours = np.ones((3,) * truth.ndim, bool)
    predicted_of, predicted = ndimage.label(prediction, neighbours)
    truth_of, lesions = ndimage.label(truth, neighbours)
    if not predicted or not lesions:
        return LesionCounts(truth=lesions, predicted=predicted, detected=0)
    code = truth_of.astype(np.int64) * (predicted + 1) + predicted_of
    shared = np.bincount(code.ravel(), minlength=(lesions + 1) * (predicted + 1))
    shared = shared.reshape(lesions + 1, predicted + 1)  # row 0 and column 0: background
    intersection = shared[1:, 1:]
    union = shared[1:].sum(axis=1)[:, None] + shared[:, 1:].sum(axis=0)[None, :] - intersection
    matches = intersection >= min_iou * union
    matches &= intersection > 0
    rows, columns = linear_sum_assignment(matches, maximize=True)
    return LesionCounts(
        truth=lesions, predicted=predicted, detected=int(matches[rows, columns].sum())
    )
