"""The `warnings` of a result: what was guessed, omitted or concealed, and in which frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sam2unet_core.types import Caution, Frame, Series

MOST = 50
"""Warnings in one list at most, because the size of events is limited."""
_MOST_NUMBERS = 8
"""Frame numbers in one warning at most."""

WarningList = list[dict[str, str | None]]
_Key = tuple[str | None, str]


class WarningLog:
    """Collects distinct warnings with the numbers of their frames.

    Args:
        series: the series, for its own warnings and those of its instances; for an array, the
            number of frames.
        whole: whether to include all instances, not only those of the frames seen.
        cut: whether the frames were reformatted; frame numbers are then omitted.
    """

    def __init__(self, series: Series | int, *, whole: bool = False, cut: bool = False) -> None:
        self._found: dict[_Key, set[int]] = {}
        self._instances: list[tuple[Caution, ...]] = []
        self._cut = cut
        if isinstance(series, int):
            self._count = series
            return
        self._count = series.frame_count
        self._instances = [instance.cautions for instance in series.instances]
        self._found.update(((None, text), set()) for text in series.warnings)
        for number in range(len(self._instances)) if whole or cut else ():
            self._of_instance(number, number)

    def collect(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield frames unchanged and collect their warnings."""
        for frame in frames:
            if self._instances:
                self._of_instance(frame.instance, frame.index)
            self._note(frame.cautions, frame.index)
            yield frame

    def to_list(self) -> WarningList:
        """Return the warnings: a code of `types.WARNINGS` (None for a series' own) and a message.

        Frame numbers start at 1; they are omitted if all frames are meant.
        """
        found: WarningList = [
            {"code": code, "message": f"{text}{self._where(numbers)}"}
            for (code, text), numbers in self._found.items()
        ]
        more = len(found) - MOST
        if more > 0:
            found[MOST:] = [{"code": None, "message": f"{more} more warnings are omitted"}]
        return found

    def _of_instance(self, number: int, index: int) -> None:
        one_each = self._count == len(self._instances)
        self._note(self._instances[number], index if one_each else None)

    def _note(self, cautions: Iterable[Caution], index: int | None) -> None:
        for caution in cautions:
            numbers = self._found.setdefault((caution.code, caution.message), set())
            if index is not None and not self._cut:
                numbers.add(index + 1)

    def _where(self, numbers: set[int]) -> str:
        if not 0 < len(numbers) < self._count:
            return ""
        more = len(numbers) - _MOST_NUMBERS
        named = ", ".join(map(str, sorted(numbers)[:_MOST_NUMBERS]))
        rest = f" and {more} more" if more > 0 else ""
        return f" (frame{'s' if len(numbers) > 1 else ''} {named}{rest})"


def not_finite() -> Caution:
    """Return the caution about an array with NaN or infinite pixels."""
    return Caution("not_finite", "pixels are NaN or infinite: shown as the lowest value")


def window_derived(low: float, high: float) -> Caution:
    """Return the caution about an array without a grey window."""
    return Caution(
        "window_guessed",
        f"neither request nor task has a grey window: shown from {low:g} to {high:g}, the lowest "
        "and the highest value",
    )
