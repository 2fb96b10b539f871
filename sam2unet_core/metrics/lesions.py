"""Lesions as connected components: detected, missed and false."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment


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
