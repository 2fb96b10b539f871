"""Gathers what was guessed, left out or concealed in the files of one unit, for the manifest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from sam2unet_core.types import Caution, Series

_MOST_NUMBERS = 8
"""Frame numbers that one sentence names."""


class CautionLog:
    """Gathers cautions by instance: those of the headers, then those of frames as they come.

    Args:
        series: its instances' own cautions are there from the start.
    """

    def __init__(self, series: Series) -> None:
        self._one_each = series.frame_count == len(series.instances)
        self._found: dict[int, dict[Caution, list[int]]] = defaultdict(dict)
        for index, instance in enumerate(series.instances):
            self.add(index, instance.cautions)

    def add(self, instance: int, cautions: Iterable[Caution], *, number: int | None = None) -> None:
        """Note cautions of an instance, and the 1-based number of the frame that they are about."""
        for caution in cautions:
            numbers = self._found[instance].setdefault(caution, [])
            if number is not None and not self._one_each:
                numbers.append(number)

    def codes(self, instance: int) -> tuple[str, ...]:
        """Return the codes of an instance, each once, in alphabetical order."""
        return tuple(sorted({caution.code for caution in self._found[instance]}))

    def texts(self, instance: int) -> tuple[str, ...]:
        """Return one sentence per caution of an instance."""
        found = self._found[instance].items()
        return tuple(f"{caution.message}{_frames(numbers)}" for caution, numbers in found)

    def all_texts(self) -> tuple[str, ...]:
        """Return the sentences of all instances, each once."""
        return tuple(dict.fromkeys(t for index in sorted(self._found) for t in self.texts(index)))


def _frames(numbers: list[int]) -> str:
    if not numbers:
        return ""
    more = len(numbers) - _MOST_NUMBERS
    named = ", ".join(map(str, numbers[:_MOST_NUMBERS]))
    rest = f" and {more} more" if more > 0 else ""
    return f" (frame{'s' if len(numbers) > 1 else ''} {named}{rest})"
