"""Which frames of a video are loaded, how small, and the room that this takes."""

from __future__ import annotations

from dataclasses import dataclass

SCALES = (1, 2, 4)
LARGE_BYTES = 10**9
"""Videos whose frames take more are not loaded without asking."""


@dataclass(frozen=True)
class Video:
    """A video file.

    Attributes:
        frames: how many it has.
        rows, columns: their size in pixels.
        framesPerSecond: 0 where it is not known.
    """

    frames: int
    rows: int
    columns: int
    framesPerSecond: float = 0.0

    def time(self, frame: int) -> str:
        """Return when a frame is shown, as `m:ss`; empty where it is not known."""
        if not self.framesPerSecond:
            return ""
        minutes, seconds = divmod(int(frame / self.framesPerSecond), 60)
        return f"{minutes}:{seconds:02}"


@dataclass(frozen=True)
class ClipChoice:
    """Which frames of a video are loaded.

    Attributes:
        first, last: frames of the file, both in it, from 0.
        step: every how many of them are loaded.
        scale: by how much height and width are divided.
    """

    first: int
    last: int
    step: int = 1
    scale: int = 1

    @property
    def frames(self) -> range:
        """The frames of the file that are loaded."""
        return range(self.first, self.last + 1, self.step)

    def size(self, video: Video) -> tuple[int, int]:
        """Return rows and columns of the loaded frames."""
        return -(-video.rows // self.scale), -(-video.columns // self.scale)

    def bytes(self, video: Video) -> int:
        """Return how much the loaded frames take."""
        rows, columns = self.size(video)
        return len(self.frames) * rows * columns * 3


def everyFrame(video: Video) -> ClipChoice:
    """Return all frames at their own size."""
    return ClipChoice(0, max(0, video.frames - 1))


def preselected(video: Video) -> ClipChoice:
    """Return the choice that is offered first: the most that takes at most `LARGE_BYTES`.

    At the largest size at which a frame of each second can be loaded; else at the smallest one.
    """
    every = everyFrame(video)
    for scale in SCALES:
        one = ClipChoice(0, 0, scale=scale).bytes(video)
        step = max(1, -(-video.frames // max(1, LARGE_BYTES // one)))
        if step <= max(1.0, video.framesPerSecond) or scale == SCALES[-1]:
            return ClipChoice(every.first, every.last, step, scale)
    raise AssertionError("unreachable: the last scale is always taken")


def inWords(size: int) -> str:
    """Return a number of bytes as people write it."""
    if size < 10**9:
        return f"{max(1, round(size / 1e6))} MB"
    return f"{size / 1e9:.1f} GB"
