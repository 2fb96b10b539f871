"""Facts about image files that decoders do not report, read from their headers."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
_SIGNATURES = {
    PNG: "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"RIFF": "WEBP",
    b"\0\0\0\x0cjP  ": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
    **dict.fromkeys((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), "PPM"),
}
"""Pillow's names of formats by their first bytes."""
_CODESTREAM = b"\xff\x4f\xff\x51"
"""JPEG 2000 without a container."""
_PNG_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
_EXIF_IN_TEXT = b"Raw profile type exif"
_MAX_EXIF = 2**17
_LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp", "jpeg2000")


@dataclass(frozen=True)
class PngHeader:
    """Bits per sample of a PNG, whether it is plain grey, and the significant bits if stated."""

    bits: int
    grey: bool
    significant_bits: int | None


class WatchedFile(io.FileIO):
    """A file that records whether a read went past its end."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read_past_end = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as a file does."""
        found = super().read(-1 if size is None else size) or b""
        if size is not None and size > len(found):
            self.read_past_end = True
        return found


def formats_by_content(path: Path) -> list[str]:
    """Return the formats whose signature a file starts with, or would if it were not truncated."""
    with path.open("rb") as stream:
        start = stream.read(12)
    if start[4:8] == b"ftyp":
        return ["AVIF"]
    found = (name for b, name in _SIGNATURES.items() if start[: len(b)] == b[: len(start)])
    return list(dict.fromkeys(found))


def is_truncated(path: Path) -> bool:
    """Whether a WebP, AVIF or JPEG 2000 file is shorter than it states."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        if start[:4] == b"RIFF":
            return len(start) < 8 or int.from_bytes(start[4:], "little") + 8 > size
        if start[:4] == _CODESTREAM:
            stream.seek(max(0, size - 2))
            return stream.read(2) != b"\xff\xd9"
        if start[4:] not in (b"ftyp", b"jP  "):
            return False
        position = 0
        while position < size:  # box by box
            stream.seek(position)
            head = stream.read(16)
            length = int.from_bytes(head[:4], "big")
            length = int.from_bytes(head[8:16], "big") if length == 1 else length
            if length < 8:  # 0: to the end of the file
                return length != 0
            position += length
    return position > size


def png_header(path: Path) -> PngHeader:
    """Return the content of IHDR and sBIT; 8 bits if the file ends before them."""
    bits, colour, significant = 8, 2, None
    with path.open("rb") as stream:
        for name, length in _png_chunks(stream):
            if name == b"IHDR":
                bits, colour = stream.read(10)[8:10]
            elif name == b"sBIT":
                significant = max(stream.read(min(length, 3)), default=0)
            elif name == b"IDAT":
                break
    return PngHeader(bits, colour == 0, significant or None)


def png_without_text(path: Path) -> bytes | None:
    """Return a PNG without its text and colour profile; None if the file is not a PNG.

    EXIF stored as text stays, since it may hold the orientation.
    """
    with path.open("rb") as stream:
        if stream.read(len(PNG)) != PNG:
            return None
        stream.seek(0)
        kept = [PNG]
        for name, length in _png_chunks(stream):
            position = stream.tell()
            start = stream.read(min(length, len(_EXIF_IN_TEXT)))
            exif = start == _EXIF_IN_TEXT and length < _MAX_EXIF
            if name not in _PNG_TEXT or exif:
                stream.seek(position - 8)
                kept.append(stream.read(12 + length))
    return b"".join(kept)


def _png_chunks(stream: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield name and length of each chunk, with the stream at its content."""
    position = len(PNG)
    while True:
        stream.seek(position)
        head = stream.read(8)
        if len(head) < 8:
            return
        length, name = struct.unpack(">I4s", head)
        yield name, length
        position += 12 + length


def largest_pnm_value(path: Path) -> int:
    """Return the maximum sample value stated in a PNM file; 255 if none is (PBM, PAM)."""
    with path.open("rb") as stream:
        start = stream.read(4096)
    words = re.sub(rb"#[^\n]*\n", b" ", start).split(maxsplit=4)
    has_maximum = len(words) > 3 and words[0] in (b"P2", b"P3", b"P5", b"P6") and words[3].isdigit()
    return int(words[3]) if has_maximum else 255


def jpeg2000_depth(path: Path) -> int:
    """Return the bits of a JPEG 2000 file's first component; 8 if it is signed or unknown."""
    with path.open("rb") as stream:
        start = stream.read(2**16)
    sizes = start.find(b"\xff\x4f\xff\x51") + 2  # SIZ
    depth = start[sizes + 40] if 2 <= sizes < len(start) - 40 else 7
    return depth + 1 if depth < 38 else 8


def is_lossy(path: Path, image: Image.Image) -> bool:
    """Whether an image was compressed with loss."""
    if image.format in ("JPEG", "MPO", "AVIF"):
        return True
    if image.format == "TIFF":
        return str(image.info.get("compression")) in _LOSSY_IN_TIFF
    if image.format not in ("WEBP", "JPEG2000"):
        return False
    with path.open("rb") as stream:
        start = stream.read(2**16)
    if image.format == "WEBP":
        return b"VP8L" not in start
    code = start.find(b"\xff\x52", start.find(b"\xff\x4f\xff\x51"))  # COD: coding style
    return code < 0 or start[code + 13 : code + 14] != b"\1"  # 1: the reversible wavelet
