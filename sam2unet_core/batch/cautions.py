"""Collects the cautions of one unit for the manifest: what was guessed, omitted or concealed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from sam2unet_core.types import Caution, Series

_MOST_NUMBERS = 8
"""Frame numbers that one sentence lists at most."""


class CautionLog:
    """Collects cautions by instance: first those of the headers, then those of frames.

    Args:
        series: the series whose instances' cautions to start with.
    """

    def __init__(self, series: Series) -> None:
        self._one_each = series.frame_count == len(series.instances)
        self._found: dict[int, dict[Caution, list[int]]] = defaultdict(dict)
        for index, instance in enumerate(series.instances):
            self.add(index, instance.cautions)

    def add(self, instance: int, cautions: Iterable[Caution], *, number: int | None = None) -> None:
        """Add cautions of an instance and the number of their frame, from 1."""
        for caution in cautions:
            numbers = self._found[instance].setdefault(caution, [])
            if number is not None and not self._one_each:
                numbers.append(number)

    def codes(self, instance: int) -> tuple[str, ...]:
        """Return the distinct codes of an instance in alphabetical order."""
        return tuple(sorted({caution.code for caution in self._found[instance]}))

    def texts(self, instance: int) -> tuple[str, ...]:
        """Return one sentence per caution of an instance."""
        found = self._found[instance].items()
        return tuple(f"{caution.message}{_frames(numbers)}" for caution, numbers in found)

    def all_texts(self) -> tuple[str, ...]:
        """Return the distinct sentences of all instances."""
        return tuple(dict.fromkeys(t for index in sorted(self._found) for t in self.texts(index)))


def _frames(numbers: list[int]) -> str:
    if not numbers:
        return ""
    more = len(numbers) - _MOST_NUMBERS
    named = ", ".join(map(str, numbers[:_MOST_NUMBERS]))
    rest = f" and {more} more" if more > 0 else ""
    return f" (frame{'s' if len(numbers) > 1 else ''} {named}{rest})"
