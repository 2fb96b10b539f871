"""Files: their hash, and writing them so that nobody ever reads half of one."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part"
"""Suffix of a file that is not finished."""


def file_sha256(path: Path | str) -> str:
    """Return the hash of a file's bytes, in hex."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def written_whole(path: Path, *, suffix: str = PART) -> Iterator[Path]:
    """Give a path to write to; the file takes its place at `path` when the block ends.

    After an error nothing is left, and what was at `path` before stays.

    Args:
        path: where the file belongs; its folder is there.
        suffix: of the path given, for libraries that tell a format by it.

    Raises:
        OSError: it cannot be written.
    """
    part = unfinished(path, suffix=suffix)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def unfinished(path: Path, *, suffix: str = PART) -> Path:
    """Return a hidden name beside `path` that nothing else has."""
    return path.with_name(f".{uuid.uuid4().hex}{suffix}")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as a whole.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    with written_whole(path) as part:
        part.write_bytes(content)
