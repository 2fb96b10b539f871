"""Many problems in one error, so that a data set can be fixed in one pass."""

from __future__ import annotations

from collections.abc import Sequence

from sam2unet_core.errors import DataError


def raise_problems(problems: Sequence[str], *, source: str, most: int = 20) -> None:
    """Raise one DataError that lists the problems, if there are any."""
    if problems:
        shown = "".join(f"\n  {each}" for each in problems[:most])
        more = f"\n  and {len(problems) - most} more" if len(problems) > most else ""
        noun = "problem" if len(problems) == 1 else "problems"
        raise DataError(f"{source}: {len(problems)} {noun}, correct or remove:{shown}{more}")
