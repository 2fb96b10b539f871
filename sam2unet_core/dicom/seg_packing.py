"""Pixel data of a segmentation, packed frame by frame into a spool file.

Memory holds one frame. Empty frames take no space in the spool.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.errors import DataError

LARGEST = 2**32 - 2
"""Bytes that one native Pixel Data element can hold (PS3.5 7.1: 32-bit even length)."""


class FrameSpool:
    """Frames of one size, to be written as native Pixel Data.

    Args:
        shape: (rows, columns).
        bits: 1 for bool frames, packed without padding, first pixel in the lowest bit (PS3.5 8.1.1
            and D.1), or 8 for uint8 frames.
        folder: where the anonymous spool file is created.
    """

    def __init__(self, shape: tuple[int, int], *, bits: int, folder: Path) -> None:
        self.shape = shape
        self.bits = bits
        self.filled: list[bool] = []
        self._spool: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def append(self, values: NDArray[np.bool_] | NDArray[np.uint8]) -> None:
        """Add a frame, `(rows, columns)` bool or uint8; raise DataError if its size differs."""
        if values.shape != self.shape:
            raise DataError(
                f"a mask of {values.shape} for frames of {self.shape}; expected equal sizes"
            )
        filled = bool(values.any())
        self.filled.append(filled)
        if filled:
            flat = values.reshape(-1)  # (rows * columns,)
            packed = np.packbits(flat, bitorder="little") if self.bits == 1 else flat
            self._spool.write(packed.tobytes())

    def size(self, frames: int) -> int:
        """Return the bytes of Pixel Data for this number of frames, padded to even."""
        bits = frames * self.shape[0] * self.shape[1] * self.bits
        length = -(-bits // 8)
        return length + length % 2

    def write(self, stream: IO[bytes], *, keep: list[bool]) -> None:
        """Write the frames for which `keep` is true; the value is padded to even length."""
        self._spool.seek(0)
        writer = _BitWriter(stream)
        pixels = self.shape[0] * self.shape[1]
        length = -(-pixels * self.bits // 8)
        empty = np.zeros(length, np.uint8)
        for filled, kept in zip(self.filled, keep, strict=True):
            packed = np.frombuffer(self._spool.read(length), np.uint8) if filled else empty
            if kept:
                writer.write(packed, bits=pixels * self.bits)
        writer.finish()

    def close(self) -> None:
        """Delete the spool."""
        self._spool.close()


class _BitWriter:
    """Writes runs of bits without padding between them."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._carry = np.uint8(0)
        self._used = 0  # number of bits in the carry
        self._written = 0

    def write(self, packed: NDArray[np.uint8], *, bits: int) -> None:
        """Write the first `bits` of `packed`, lowest bit first; further bits must be 0."""
        if self._used:
            low = packed << np.uint8(self._used)
            high = packed >> np.uint8(8 - self._used)
            low[1:] |= high[:-1]
            low[0] |= self._carry
            packed = np.append(low, high[-1])
        whole, self._used = divmod(self._used + bits, 8)
        self._carry = packed[whole] if self._used else np.uint8(0)
        self._put(packed[:whole].tobytes())

    def finish(self) -> None:
        if self._used:
            self._put(self._carry.tobytes())
        if self._written % 2:
            self._put(b"\0")

    def _put(self, content: bytes) -> None:
        self._stream.write(content)
        self._written += len(content)
