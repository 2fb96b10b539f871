"""Allows one run at a time in a results folder; the lock is released when the process dies."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from sam2unet_core.errors import LockedError

NAME = ".lock"
MERGE_S = 120.0
"""Seconds that a shard waits for another one to merge."""
TRIES = 20 if sys.platform == "win32" else 1
"""How often to look whether a lock is free: where no lock is shared, those who look clash."""
WAIT_S = 0.05
"""Seconds between these."""


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
        self._held: list[BinaryIO] = []

    def __enter__(self) -> FolderLock:
        """Take the lock."""
        try:
            self._take(self.folder / f"{NAME}{self.suffix}")
            self._check_others()
        except BaseException:
            self._drop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop the lock."""
        self._drop()

    def _check_others(self) -> None:
        for path in sorted(self.folder.glob(f"{NAME}*")):
            own = path.name == f"{NAME}{self.suffix}"
            both_shards = bool(self.suffix) and path.name != NAME
            if own or both_shards:
                continue
            stream = _open(path)
            try:
                _look(stream, self.folder)  # shards that start at once do not clash
            finally:
                stream.close()

    def _take(self, path: Path) -> None:
        stream = _open(path)
        self._held.append(stream)
        _lock(stream, self.folder)

    def _drop(self) -> None:
        for stream in self._held:
            stream.close()  # drops the lock as well
        self._held.clear()


@contextmanager
def merging(folder: Path) -> Iterator[None]:
    """Let one shard at a time write the summary; the others wait for it.

    Raises:
        LockedError: another one takes longer than `MERGE_S`.
    """
    stream = _open(folder / ".merging")
    until = time.monotonic() + MERGE_S
    try:
        while True:
            try:
                _lock(stream, folder)
            except LockedError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
            else:
                break
        yield
    finally:
        stream.close()


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")


def _look(stream: BinaryIO, folder: Path) -> None:
    """Raise LockedError if somebody holds the lock for longer than a check takes."""
    for _ in range(TRIES - 1):
        with suppress(LockedError):
            _lock(stream, folder, shared=True)
            return
        time.sleep(WAIT_S)
    _lock(stream, folder, shared=True)


def _lock(stream: BinaryIO, folder: Path, *, shared: bool = False) -> None:
    try:
        _system_lock(stream, shared=shared)
    except OSError as error:
        raise LockedError(
            f"{folder}: another run is writing to it; wait for it or give another folder with -o"
        ) from error


if sys.platform == "win32":
    import msvcrt

    def _system_lock(stream: BinaryIO, *, shared: bool) -> None:
        del shared  # Windows has no shared lock of this kind
        stream.seek(0)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _system_lock(stream: BinaryIO, *, shared: bool) -> None:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(stream.fileno(), kind | fcntl.LOCK_NB)
