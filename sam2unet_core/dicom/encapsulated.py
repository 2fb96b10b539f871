"""Encapsulated pixel data: assign fragments to frames (PS3.5 A.4)."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import BinaryIO

from pydicom import Dataset

from sam2unet_core.errors import InputError, Reason

Fragment = tuple[int, int]
"""Offset and length in bytes of a fragment's value in the file."""

_ITEM = (0xFFFE, 0xE000)
_END = (0xFFFE, 0xE0DD)
_SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG, JPEG-LS
    b"\xff\x4f\xff\x51",  # JPEG 2000 codestream
    b"\0\0\0\x0cjP  ",  # JP2
    b"\xff\x0a",  # JPEG XL codestream
    b"\0\0\0\x0cJXL ",  # JPEG XL container
)
"""Signatures of compressed streams, by which the first fragment of a frame is found."""


def value_offset(head: bytes) -> int:
    """Return the offset of the value in a pixel element, from its first 12 bytes.

    The presence of a VR is detected, since this element may differ from the rest of the file. A VR
    cannot be confused with a length: read as little-endian, each would be odd.
    """
    return 12 if head[4:6] in (b"OB", b"OW", b"OF", b"OD", b"UN") and head[6:8] == b"\0\0" else 8


def read_fragments(file: BinaryIO) -> tuple[bytes, list[Fragment]]:
    """Return the offset table and the fragments; the file is at its Pixel Data element.

    Raises:
        InputError: the pixel data are not encapsulated, empty or broken.
    """
    start = file.tell()
    place = start + value_offset(file.read(12))
    file.seek(place)
    if file.read(4) != struct.pack("<HH", *_ITEM):  # whatever length is stated
        raise InputError(
            "the pixel data are not encapsulated, as the transfer syntax requires",
            reason=Reason.CORRUPT,
        )
    found: list[Fragment] = []
    size = file.seek(0, io.SEEK_END)
    while place + 8 <= size:
        file.seek(place)
        group, element, length = struct.unpack("<HHL", file.read(8))
        if (group, element) == _END:
            break
        if (group, element) != _ITEM:
            raise InputError("the fragments of the pixel data are broken", reason=Reason.CORRUPT)
        found.append((place + 8, min(length, size - place - 8)))
        place += 8 + length
    if len(found) < 2 or not sum(length for _, length in found[1:]):
        raise InputError("the pixel data are empty; copy the file again", reason=Reason.TRUNCATED)
    file.seek(found[0][0])
    table = file.read(found[0][1])
    return table, [fragment for fragment in found[1:] if fragment[1]]


def read_frames(file: BinaryIO, dataset: Dataset) -> list[list[Fragment]]:
    """Return the fragments of each frame in the file, which may hold more than it states.

    Frames are found by the offset table; if it is empty, invalid or incomplete, by the signatures
    of compressed streams; else every fragment is a frame. The file is at its Pixel Data element.

    Raises:
        InputError: see `read_fragments`.
    """
    table, fragments = read_fragments(file)
    starts = _stated(table, fragments) or _extended(dataset, fragments)
    found = _stream_starts(file, fragments)
    if len(found) > len(starts or ()):
        starts = found  # a table may omit frames, as the header does
    if starts is None:
        starts = list(range(len(fragments)))  # RLE and deflated frames have one fragment each
    ends = [*starts[1:], len(fragments)]
    return [fragments[start:end] for start, end in zip(starts, ends, strict=True)]


def read_stream(file: BinaryIO, fragments: Sequence[Fragment]) -> bytes:
    """Return the compressed stream of a frame."""
    parts = []
    for offset, length in fragments:
        file.seek(offset)
        parts.append(file.read(length))
    return b"".join(parts)


def _stated(table: bytes, fragments: Sequence[Fragment]) -> list[int] | None:
    """Return the first fragment of each frame by the Basic Offset Table, or None."""
    if len(table) < 4:
        return None
    count = len(table) // 4
    return _at(struct.unpack(f"<{count}L", table[: 4 * count]), fragments)


def _extended(dataset: Dataset, fragments: Sequence[Fragment]) -> list[int] | None:
    """Return the first fragment of each frame by the Extended Offset Table, or None."""
    table = dataset.get("ExtendedOffsetTable")
    if not isinstance(table, bytes) or len(table) < 8:
        return None
    count = len(table) // 8
    return _at(struct.unpack(f"<{count}Q", table[: 8 * count]), fragments)


def _at(offsets: Sequence[int], fragments: Sequence[Fragment]) -> list[int] | None:
    """Return the fragments at offsets from the first one; None if one is missing."""
    places = {offset - fragments[0][0]: index for index, (offset, _) in enumerate(fragments)}
    if not offsets or offsets[0] != 0 or list(offsets) != sorted(set(offsets)):
        return None
    found = [places.get(offset) for offset in offsets]
    return None if None in found else [index for index in found if index is not None]


def _stream_starts(file: BinaryIO, fragments: Sequence[Fragment]) -> list[int]:
    """Return the fragments with the signature of the first one, if it is a known one."""
    starts = []
    for offset, length in fragments:
        file.seek(offset)
        starts.append(file.read(min(12, length)))
    signature = next((each for each in _SIGNATURES if starts[0].startswith(each)), None)
    if signature is None:
        return []
    return [index for index, each in enumerate(starts) if each.startswith(signature)]
