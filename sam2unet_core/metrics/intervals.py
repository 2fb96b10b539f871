"""Mean, median and a bootstrap interval over groups of images."""

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
    """A score over images; NaN where it is undefined.

    Attributes:
        mean: over the images where the score is defined.
        median: likewise; NaN for a rate.
        low: lower end of the 95 % bootstrap interval of the mean.
        high: its upper end.
        count: number of images, or the denominator of a rate.
        groups: number of groups that were resampled.
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
    """Summarise one score over images, ignoring NaN.

    `groups` gives the group of each image. The bootstrap resamples whole groups, since images of
    one patient are not independent.
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
    """Summarise sum(parts) / sum(wholes) over images, such as the share of detected lesions.

    Images with a denominator of 0 are ignored; see `summarise` for the groups.
    """
    members: dict[str, list[int]] = {}
    for index, (whole, group) in enumerate(zip(wholes, groups, strict=True)):
        if whole:
            members.setdefault(group, []).append(index)
    if not members:
        return Summary(math.nan, math.nan, math.nan, math.nan, 0, 0)
    ordered = [members[name] for name in sorted(members)]
    numerators = np.array([math.fsum(parts[i] for i in each) for each in ordered])
    denominators = np.array([float(sum(wholes[i] for i in each)) for each in ordered])
    low, high = _interval(numerators, denominators, seed=seed, resamples=resamples)
    mean = float(math.fsum(numerators) / denominators.sum())
    return Summary(mean, math.nan, low, high, int(denominators.sum()), len(ordered))


def _interval(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64], *, seed: int, resamples: int
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the ratio of sums over groups."""
    if len(numerators) < 2:
        return math.nan, math.nan

    def pooled(
        numerator: NDArray[np.float64], denominator: NDArray[np.float64], axis: int = -1
    ) -> NDArray[np.float64]:
        quotient: NDArray[np.float64] = numerator.sum(axis=axis) / denominator.sum(axis=axis)
        return quotient

    found = stats.bootstrap(
        (numerators, denominators),
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
