"""Images set apart by what the mask of a class shows: how much of the frame, how many lesions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

SMALL = 0.05
LARGE = 0.2
"""Shares of the frame: a class is small below the first, large above the second."""

Row = dict[str, str | float]


@dataclass(frozen=True)
class Stratum:
    """Some of the images that show a class.

    Attributes:
        title: what they have in common, in words.
        holds: whether a row of `metrics.csv` is one of them.
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
"""Each divides the images that show the class; by the keys of `summary.json`."""


def _share(row: Row) -> float:
    return float(row["share"])
