"""Recordings joined end to end in one file.

FFmpeg reads all of them in MPEG streams and Matroska, but only the first in MP4, QuickTime, FLV,
ASF and MXF; in AVI the timestamps do not show the joint.
"""

from __future__ import annotations

import io
import mmap
from pathlib import Path

_ASF = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"
_MXF = b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02"
_MOV = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


class PartOfFile(io.RawIOBase):
    """A range of bytes of a file, as a stream."""

    def __init__(self, path: Path, start: int, end: int) -> None:
        super().__init__()
        self._stream = path.open("rb")
        self._start, self._size = start, end - start
        self._place = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read within the range."""
        left = max(0, self._size - self._place)
        size = left if size is None or size < 0 else min(size, left)
        self._stream.seek(self._start + self._place)
        found = self._stream.read(size)
        self._place += len(found)
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a position within the range."""
        base = (0, self._place, self._size)[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        """Return the position within the range."""
        return self._place

    def close(self) -> None:
        """Close the file too."""
        self._stream.close()
        super().close()


def recordings(path: Path) -> list[tuple[int, int]]:
    """Return the (start, end) of each recording; the whole file if it holds one.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(16)
    places = [0]
    if start[4:8] in _MOV:
        places = _mov(path, size)
    elif start[:4] == b"RIFF":
        places = _avi(path, size)
    elif start.startswith(b"FLV\x01"):
        places = _find_all(path, start[:9])
    elif start.startswith((_ASF, _MXF)):
        places = _find_all(path, _ASF if start.startswith(_ASF) else _MXF)
    return list(zip(places, [*places[1:], size], strict=True))


def _mov(path: Path, size: int) -> list[int]:
    """Return the start of each recording: a `ftyp` box after a `moov`."""
    places, has_index, place = [0], False, 0
    with path.open("rb") as stream:
        while place + 8 <= size:
            stream.seek(place)
            head = stream.read(16)
            length, name = int.from_bytes(head[:4], "big"), head[4:8]
            if name == b"ftyp" and has_index:
                places.append(place)
                has_index = False
            has_index = has_index or name == b"moov"
            length = int.from_bytes(head[8:16], "big") if length == 1 else length
            if length < 8:
                break
            place += length
    return places if has_index else places[:-1] or [0]


def _avi(path: Path, size: int) -> list[int]:
    """Return the start of each `AVI ` list; `AVIX` continues the previous one."""
    places, place = [], 0
    with path.open("rb") as stream:
        while place + 12 <= size:
            stream.seek(place)
            head = stream.read(12)
            if head[:4] != b"RIFF":
                break
            if head[8:] == b"AVI ":
                places.append(place)
            length = int.from_bytes(head[4:8], "little")
            place += 8 + length + length % 2
    return places or [0]


def _find_all(path: Path, header: bytes) -> list[int]:
    """Return all positions of a file's header."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        places, place = [], 0
        while (place := whole.find(header, place)) >= 0:
            places.append(place)
            place += len(header)
    return places
