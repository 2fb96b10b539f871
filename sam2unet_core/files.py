"""File hashes and atomic writes."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part"
"""Suffix of an unfinished file."""


def file_sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file, in hex."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def written_whole(path: Path, *, suffix: str = PART) -> Iterator[Path]:
    """Yield a temporary path; when the block ends without an error, the file replaces `path`.

    Args:
        path: the target; its folder must exist.
        suffix: of the temporary path, for libraries that recognise a format by suffix.

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
    """Return a unique hidden path in the folder of `path`."""
    return path.with_name(f".{uuid.uuid4().hex}{suffix}")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; after an OSError the previous file is unchanged."""
    with written_whole(path) as part:
        part.write_bytes(content)
