"""The video stream inside a DICOM instance: fragments read as one file, then decoded."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from sam2unet_core.dicom.header import frame_count, open_header
from sam2unet_core.errors import InputError, MissingExtraError
from sam2unet_core.media.video import pictures

_ITEM = (0xFFFE, 0xE000)
_END = (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF


def iterate_video(
    path: Path, dataset: Dataset, *, codec: str, stride: int = 1
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Decode the frames of an encapsulated video one at a time.

    Args:
        path: the file.
        dataset: its header.
        codec: `mpeg`, `h264` or `hevc`.
        stride: take every so-manyth frame, from the first.

    Yields:
        The frame's 0-based index, in the order of display, and its pixels, `(H, W, 3)` uint8 RGB.

    Raises:
        InputError: the stream is broken, holds fewer frames than the header says, or PyAV is not
            installed.
    """
    count, size = frame_count(dataset), (int(dataset.Rows), int(dataset.Columns))
    done = 0
    try:
        with path.open("rb") as file:
            stream = cast(BinaryIO, FragmentStream(file))
            for picture in pictures(stream, stride=stride, bare=codec):
                if picture.index >= count:
                    return  # more than the header says: these have no frame number
                if picture.pixels.shape[:2] != size:
                    raise InputError(
                        f"the stream holds frames of {picture.pixels.shape[:2]}, the header says "
                        f"{size}",
                        reason="corrupt",
                    )
                yield picture.index, picture.pixels
                done += 1
    except MissingExtraError as error:
        raise InputError(str(error), reason="unsupported_transfer_syntax") from error
    wanted = len(range(0, count, stride))
    if done < wanted:
        raise InputError(
            f"the stream holds {done} of {wanted} frames that the header announces",
            reason="truncated",
        )


class FragmentStream(io.RawIOBase):
    """The fragments of encapsulated pixel data, one after another, without reading them in.

    Args:
        file: an open DICOM file; it has to stay open.

    Raises:
        InputError: the pixel data are not encapsulated, or end early.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        open_header(file)
        self._fragments = _fragments(file)
        self._ends = np.cumsum([length for _, length in self._fragments], dtype=np.int64)
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the place in the stream."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in the stream and return it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: int(self._ends[-1])}
        self._position = max(0, start[whence] + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, to the end if negative; across fragments."""
        remaining = int(self._ends[-1]) - self._position
        size = remaining if size < 0 else min(size, remaining)
        parts = []
        while size > 0:
            index = int(np.searchsorted(self._ends, self._position, side="right"))
            offset, length = self._fragments[index]
            inside = self._position - (int(self._ends[index]) - length)
            self._file.seek(offset + inside)
            part = self._file.read(min(size, length - inside))
            if not part:
                break
            parts.append(part)
            self._position += len(part)
            size -= len(part)
        return b"".join(parts)


def _fragments(file: BinaryIO) -> list[tuple[int, int]]:
    """Return (offset, length) of each fragment; the file is at its Pixel Data element."""
    head = file.read(12)
    place = file.tell()
    if len(head) < 12 or struct.unpack("<L", head[8:])[0] != _UNDEFINED:
        raise InputError("the video is not encapsulated as the standard asks", reason="corrupt")
    found: list[tuple[int, int]] = []
    size = file.seek(0, io.SEEK_END)
    while place + 8 <= size:
        file.seek(place)
        group, element, length = struct.unpack("<HHL", file.read(8))
        if (group, element) == _END:
            break
        if (group, element) != _ITEM:
            raise InputError("the video's fragments are broken", reason="corrupt")
        found.append((place + 8, min(length, size - place - 8)))
        place += 8 + length
    if len(found) < 2 or not sum(length for _, length in found[1:]):
        raise InputError("the video stream is empty", reason="truncated")
    return [fragment for fragment in found[1:] if fragment[1]]  # the first is the offset table
