"""Strata of images by the mask of a class: share of the frame, number of lesions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

SMALL = 0.05
LARGE = 0.2
"""Share of the frame below which a class is small, and above which it is large."""

Row = dict[str, str | float]


@dataclass(frozen=True)
class Stratum:
    """A subset of the images that show a class.

    Attributes:
        title: what the images have in common.
        holds: whether a row of `metrics.csv` belongs to it.
    """

    title: str
    holds: Callable[[Row], bool]


STRATA: dict[str, dict[str, Stratum]] = {
    "by_size": {
        "small": Stratum("below 5 % of the frame", lambda row: 0 < _share(row) < SMALL),
        "medium": Stratum("5 to 20 % of the frame", lambda row: SMALL <= _share(row) <= LARGE),
        "large": Stratum("above 20 % of the frame", lambda row: _share(row) > LARGE),
    },
    "by_number": {
        "one": Stratum("one lesion", lambda row: row["lesions"] == 1),
        "several": Stratum("several lesions", lambda row: float(row["lesions"]) > 1),
    },
}
"""Partitions of the images that show a class, by their key in `summary.json`."""


def _share(row: Row) -> float:
    return float(row["share"])
