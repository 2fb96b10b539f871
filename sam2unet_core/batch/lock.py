"""Allows one run at a time in a results folder; the lock is released when the process ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sam2unet_core.errors import LockedError

NAME = ".lock"
MERGE_S = 120.0
"""Seconds that a shard waits while another one merges."""
LOOK_S = 1.0
"""Seconds to wait for another run's lock, which other runs hold briefly while they check it."""


class FolderLock:
    """A context that locks a results folder.

    Each shard has its own lock, so shards can share a folder. A run that is not a shard shares it
    with no other run.

    Args:
        folder: the results folder, which exists.
        suffix: the shard's suffix, or empty.

    Raises:
        LockedError: another run holds the folder.
    """

    def __init__(self, folder: Path, *, suffix: str = "") -> None:
        self.folder = folder
        self.suffix = suffix
        self._held = ExitStack()

    def __enter__(self) -> FolderLock:
        """Take the lock."""
        with ExitStack() as taken:
            taken.enter_context(_locked(self.folder / f"{NAME}{self.suffix}"))
            for path in self._of_others():
                with _locked(path, wait_s=LOOK_S):
                    pass
            self._held = taken.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self._held.close()

    def _of_others(self) -> list[Path]:
        """Return the locks that no other run may hold."""
        if self.suffix:
            return [path for path in [self.folder / NAME] if path.exists()]
        return sorted(path for path in self.folder.glob(f"{NAME}*") if path.name != NAME)


@contextmanager
def merging(folder: Path) -> Iterator[None]:
    """Let one shard at a time write the summary, while the others wait.

    Raises:
        LockedError: another shard takes longer than `MERGE_S`.
    """
    with _locked(folder / ".merging", wait_s=MERGE_S):
        yield


@contextmanager
def _locked(path: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of a file; the file is not deleted."""
    lock = FileLock(path, timeout=wait_s)
    try:
        lock.acquire()
    except Timeout as error:
        raise LockedError(
            f"{path.parent}: another run is writing to it; wait for it or give another folder "
            "with -o"
        ) from error
    try:
        yield
    finally:
        lock.release()
