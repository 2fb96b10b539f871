"""Video in DICOM: the fragments as one stream, then decoded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from sam2unet_core.dicom.codecs import read_fragments
from sam2unet_core.dicom.header import frame_count, open_header
from sam2unet_core.errors import InputError, MissingExtraError, Reason
from sam2unet_core.media.video import pictures, probe
from sam2unet_core.types import Caution, Indices


def count_frames(path: Path, codec: str, *, stated: int) -> int:
    """Return the number of frames of a video instance; `stated` if it cannot be read.

    Packets are counted; if there are more than stated, which may be single fields, the stream is
    decoded.
    """
    try:
        with path.open("rb") as file:
            packets = probe(cast(BinaryIO, FragmentStream(file)), bare=codec).frames
        if packets <= stated:
            return packets
        with path.open("rb") as file:
            stream = cast(BinaryIO, FragmentStream(file))
            return sum(1 for _ in pictures(stream, bare=codec))
    except (InputError, MissingExtraError, OSError):
        return stated  # the error is reported when the frames are read


def iterate_video(
    path: Path, dataset: Dataset, *, codec: str, frames: int | None = None, indices: Indices = None
) -> Iterator[tuple[int, NDArray[np.uint8], tuple[Caution, ...]]]:
    """Decode the frames of an encapsulated video one at a time.

    Args:
        path: the file.
        dataset: its header.
        codec: `mpeg`, `h264` or `hevc`.
        frames: actual number of frames; by default that of the header.
        indices: frames to decode; all by default.

    Yields:
        The frame's 0-based index in display order, its pixels, `(H, W, 3)` uint8 RGB, and what the
        decoder concealed.

    Raises:
        InputError: the stream is broken, holds too few frames, or PyAV is not installed.
    """
    count = frames or frame_count(dataset)
    wanted = range(count) if indices is None else indices
    size = (int(dataset.Rows), int(dataset.Columns))
    done = 0
    try:
        with path.open("rb") as file:
            stream = cast(BinaryIO, FragmentStream(file))
            for picture in pictures(stream, indices=wanted, bare=codec):
                if picture.pixels.shape[:2] != size:
                    raise InputError(
                        f"the stream holds frames of {picture.pixels.shape[:2]}, but the header "
                        f"states {size}",
                        reason=Reason.CORRUPT,
                    )
                yield picture.index, picture.pixels, picture.cautions
                done += 1
    except MissingExtraError as error:
        raise InputError(str(error), reason=Reason.UNSUPPORTED_TRANSFER_SYNTAX) from error
    if done < len(wanted):
        raise InputError(
            f"the stream holds {done} of {len(wanted)} frames that the header states",
            reason=Reason.TRUNCATED,
        )


class FragmentStream(io.RawIOBase):
    """The concatenated fragments of encapsulated pixel data, read on demand.

    Args:
        file: an open DICOM file; it has to stay open.

    Raises:
        InputError: the pixel data are not encapsulated, or truncated.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        open_header(file)
        _, self._fragments = read_fragments(file)
        self._ends = np.cumsum([length for _, length in self._fragments], dtype=np.int64)
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the stream."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position in the stream and return it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: int(self._ends[-1])}
        self._position = max(0, start[whence] + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, all if negative, across fragments."""
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
