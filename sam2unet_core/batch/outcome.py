"""Progress and outcome of a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Progress:
    """Progress of a run.

    Attributes:
        frames_found: frames of the inputs found so far.
        scanned: whether all inputs have been found.
        frames_done: frames done in this run or a previous one.
        frames_before: frames done in a previous run.
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
        frames: number of frames segmented in this run.
        seconds: duration of the run.
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
        """0 if all inputs are done, 3 if some failed or the run stopped early."""
        return 3 if self.stopped or self.statuses.get("failed") else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as JSON types."""
        return {"exit_code": self.exit_code, **asdict(self)}
