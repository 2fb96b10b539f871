"""The progress bar of `sam2unet segment`: frames, frames per second, time left."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.progress import Task as RichTask
from rich.text import Text

if TYPE_CHECKING:
    from sam2unet_core.batch import Progress


class _Rate(ProgressColumn):
    """Frames per second of this run."""

    def render(self, task: RichTask) -> Text:
        """Return the rate."""
        done = task.completed - task.fields["before"]
        rate = done / task.elapsed if task.elapsed else 0.0
        return Text(f"{rate:.1f} frames/s")


class FrameBar:
    """A context that shows a progress bar on stderr.

    Args:
        show: whether to show it.
    """

    def __init__(self, *, show: bool) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failed]}"),
            console=Console(stderr=True),
            transient=True,
            disable=not show,
        )
        self._job = self._bar.add_task("scanning inputs", total=None, before=0, failed="")

    def __enter__(self) -> FrameBar:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the bar."""
        self._bar.stop()

    def tell(self, progress: Progress) -> None:
        """Update the bar."""
        failed = progress.statuses.get("failed", 0)
        self._bar.update(
            self._job,
            description="segmenting" if progress.scanned else "segmenting, still scanning",
            completed=progress.frames_done,
            total=progress.frames_found or None,
            before=progress.frames_before,
            failed=f"{failed} failed" if failed else "",
        )
