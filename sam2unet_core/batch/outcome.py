"""Progress and outcome of a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Progress:
    """Progress of a run.

    Attributes:
        frames_found: frames of the inputs seen so far.
        scanned: whether all inputs have been seen.
        frames_done: of these, done now or before.
        frames_before: of these, done before.
        statuses: number of inputs by status.
    """

    frames_found: int = 0
    scanned: bool = False
    frames_done: int = 0
    frames_before: int = 0
    statuses: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        statuses: number of inputs by status.
        reasons: number of inputs by reason.
        warnings: number of inputs by warning.
        frames: how many were segmented in this run.
        seconds: how long it took.
        stopped: why it stopped early; empty if it did not.
    """

    statuses: dict[str, int]
    reasons: dict[str, int]
    frames: int
    seconds: float
    stopped: str = ""
    warnings: dict[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 where all is done, 3 where some inputs failed."""
        return 3 if self.stopped or self.statuses.get("failed") else 0

    def to_dict(self) -> dict[str, Any]:
        """Return a value that JSON can hold."""
        return {"exit_code": self.exit_code, **asdict(self)}
