"""Files: hashes, atomic writes, and names without patient names."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

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


_SURROGATES = re.compile(r"[\ud800-\udfff]")
"""Surrogates, by which Python represents bytes that are not UTF-8."""


def without_names(text: str, paths: Iterable[Path]) -> str:
    """Return a message without the names of these files and of their folders."""
    names: dict[str, str] = {}
    for path in paths:
        for one in (path, Path(os.path.realpath(path))):
            names |= {str(folder): "its folder" for folder in one.parents if folder.name}
            names |= {str(one): "the file", one.name: "the file"}
    for name in sorted((n for n in names if len(n) > 1), key=len, reverse=True):
        text = text.replace(name, names[name])
    return text


def in_utf8(name: str) -> str:
    """Return a file name in valid UTF-8: other bytes are percent-encoded, as in %E9."""
    return _SURROGATES.sub(lambda found: f"%{ord(found[0]) & 0xFF:02X}", name)


class FileWriter(ABC):
    """Context manager to which frames are added; the file appears when the block ends.

    After an error there is no file. The unfinished file has a hidden name that ends in `.part`;
    only a killed process leaves one behind.

    Args:
        path: the file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._temporary = unfinished(self.path)

    def __enter__(self) -> Self:  # noqa: D105
        return self

    def __exit__(  # noqa: D105
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            try:
                if kind is None:
                    self._finish(self._temporary)
            finally:
                self._release()
            if kind is None:
                self._temporary.replace(self.path)
        finally:
            self._temporary.unlink(missing_ok=True)

    @abstractmethod
    def _finish(self, temporary: Path) -> None:
        """Complete the file `temporary`."""

    def _release(self) -> None:  # noqa: B027
        """Close open files; called after `_finish`, or instead of it after an error."""
