"""Mean, median and a bootstrap interval that respects what belongs together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 2000


@dataclass(frozen=True)
class Summary:
    """A score over images; NaN where it cannot be told.

    Attributes:
        mean: over the images where the score is defined.
        median: likewise; of a rate, NaN.
        low: lower end of the 95 % bootstrap interval of the mean.
        high: its upper end.
        count: images (of a rate, its denominator) that it rests on.
        groups: groups that were resampled.
    """

    mean: float
    median: float
    low: float
    high: float
    count: int
    groups: int


def summarise(
    values: Sequence[float], groups: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES
) -> Summary:
    """Summarise one score over images; an image where it is NaN counts for nothing.

    The interval resamples whole groups, since images of one patient are no independent evidence.

    Args:
        values: the score of each image.
        groups: the group of each image.
        seed: of the resampling.
        resamples: how many.
    """
    kept = [(v, g) for v, g in zip(values, groups, strict=True) if not math.isnan(v)]
    if not kept:
        return Summary(math.nan, math.nan, math.nan, math.nan, 0, 0)
    found = ratio(
        [value for value, _ in kept],
        [1] * len(kept),
        [group for _, group in kept],
        seed=seed,
        resamples=resamples,
    )
    median = float(np.median([value for value, _ in kept]))
    return Summary(found.mean, median, found.low, found.high, len(kept), found.groups)


def ratio(
    parts: Sequence[float],
    wholes: Sequence[int],
    groups: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Summary:
    """Summarise sum(parts) / sum(wholes) over images, such as lesions detected of those there.

    Args:
        parts: the numerator of each image.
        wholes: its denominator; images of 0 count for nothing.
        groups: the group of each image.
        seed: of the resampling.
        resamples: how many.
    """
    members: dict[str, list[int]] = {}
    for index, (whole, group) in enumerate(zip(wholes, groups, strict=True)):
        if whole:
            members.setdefault(group, []).append(index)
    if not members:
        return Summary(math.nan, math.nan, math.nan, math.nan, 0, 0)
    ordered = [members[name] for name in sorted(members)]
    tops = np.array([math.fsum(parts[i] for i in each) for each in ordered])
    bottoms = np.array([float(sum(wholes[i] for i in each)) for each in ordered])
    low, high = _interval(tops, bottoms, seed=seed, resamples=resamples)
    mean = float(math.fsum(tops) / bottoms.sum())
    return Summary(mean, math.nan, low, high, int(bottoms.sum()), len(ordered))


def _interval(
    tops: NDArray[np.float64], bottoms: NDArray[np.float64], *, seed: int, resamples: int
) -> tuple[float, float]:
    """Return the 95 % percentile interval of sum(tops) / sum(bottoms) over resampled groups."""
    if len(tops) < 2:
        return math.nan, math.nan

    def pooled(
        top: NDArray[np.float64], bottom: NDArray[np.float64], axis: int = -1
    ) -> NDArray[np.float64]:
        quotient: NDArray[np.float64] = top.sum(axis=axis) / bottom.sum(axis=axis)
        return quotient

    found = stats.bootstrap(
        (tops, bottoms),
        pooled,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=200,
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
