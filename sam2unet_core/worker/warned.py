"""The `warnings` of a result: what was guessed, left out or concealed, and in which frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sam2unet_core.types import Caution, Frame, Series

MOST = 50
"""Warnings that one list holds: events have a largest size."""
_MOST_NUMBERS = 8
"""Frame numbers that one warning names."""

Told = list[dict[str, str | None]]
_Key = tuple[str | None, str]


class Warned:
    """Gathers warnings, each once, with the numbers of the frames that they are about.

    Args:
        series: whose own warnings and whose instances' cautions belong to the frames; for an array
            how many frames it has.
        whole: all of its instances count, not only those that frames come from.
        cut: frames are cut through all instances, so that numbers mean nothing.
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

    def of(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield frames as they come and note what is about them."""
        for frame in frames:
            if self._instances:
                self._of_instance(frame.instance, frame.index)
            self._note(frame.cautions, frame.index)
            yield frame

    def told(self) -> Told:
        """Return the warnings: a code of `types.WARNINGS`, None for the source's own, and a text.

        Frame numbers begin at 1; they are left out where all frames are meant.
        """
        found: Told = [
            {"code": code, "message": f"{text}{self._where(numbers)}"}
            for (code, text), numbers in self._found.items()
        ]
        more = len(found) - MOST
        if more > 0:
            found[MOST:] = [{"code": None, "message": f"{more} more warnings are left out here"}]
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
    """Return the caution about an array's pixels that are no numbers."""
    return Caution(
        "not_finite", "pixels are no number (NaN or infinite): shown as the lowest value"
    )


def window_derived(low: float, high: float) -> Caution:
    """Return the caution about an array that came without a window."""
    return Caution(
        "window_guessed",
        f"neither request nor task gives a grey window: shown from {low:g} to {high:g}, the "
        "lowest and the highest value",
    )
