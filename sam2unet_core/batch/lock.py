"""Allows one run at a time in a results folder; the lock is released when the process dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sam2unet_core.errors import LockedError

NAME = ".lock"
MERGE_S = 120.0
"""Seconds that a shard waits for another one to merge."""
LOOK_S = 1.0
"""Seconds in which another's lock has to be free: those who look at it hold it for a moment."""


class FolderLock:
    """Holds a results folder while it is entered.

    A shard holds a lock of its own, so shards may share a folder; a run that is no shard may not
    share it with anyone.

    Args:
        folder: the results folder; it exists.
        suffix: the shard's, or empty.

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
        """Drop the lock."""
        self._held.close()

    def _of_others(self) -> list[Path]:
        """Return the locks that nobody else may hold."""
        if self.suffix:
            return [path for path in [self.folder / NAME] if path.exists()]
        return sorted(path for path in self.folder.glob(f"{NAME}*") if path.name != NAME)


@contextmanager
def merging(folder: Path) -> Iterator[None]:
    """Let one shard at a time write the summary; the others wait for it.

    Raises:
        LockedError: another one takes longer than `MERGE_S`.
    """
    with _locked(folder / ".merging", wait_s=MERGE_S):
        yield


@contextmanager
def _locked(path: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of a file, which stays where it is."""
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
