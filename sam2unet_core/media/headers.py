"""What image decoders do not tell: read from the first bytes of the file itself."""

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
_BEGINNINGS = (
    PNG,
    b"\xff\xd8\xff",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"RIFF",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
    *(f"P{n}".encode() for n in range(1, 7)),
)
_PNG_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
_EXIF_IN_TEXT = b"Raw profile type exif"
_LARGEST_EXIF = 2**17
_JPEG_IN_TIFF = ("jpeg", "tiff_jpeg", "webp", "jpeg2000")


@dataclass(frozen=True)
class PngHeader:
    """Of a PNG: bits a sample, whether it is grey alone, and the significant bits if stated."""

    bits: int
    grey: bool
    significant_bits: int | None


class WatchedFile(io.FileIO):
    """A file that notes whether more was asked for than it holds."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.ran_out = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as a file does."""
        found = super().read(-1 if size is None else size) or b""
        if size is not None and size > len(found):
            self.ran_out = True
        return found


def begins_like_an_image(path: Path) -> bool:
    """Whether the first bytes are those of an image format, or a file ends within them."""
    with path.open("rb") as stream:
        start = stream.read(12)
    is_ftyp = start[4:8] == b"ftyp"
    return is_ftyp or any(start[: len(b)] == b[: len(start)] for b in _BEGINNINGS)


def overruns(path: Path) -> bool:
    """Whether a WebP, AVIF or JPEG 2000 file announces more bytes than it holds."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        if start[:4] == b"RIFF":
            return len(start) < 8 or int.from_bytes(start[4:], "little") + 8 > size
        if start[4:] not in (b"ftyp", b"jP  "):
            return False
        place = 0
        while place < size:  # from box to box
            stream.seek(place)
            head = stream.read(16)
            length = int.from_bytes(head[:4], "big")
            length = int.from_bytes(head[8:16], "big") if length == 1 else length
            if length < 8:  # 0: up to the end of the file
                return length != 0
            place += length
    return place > size


def png_header(path: Path) -> PngHeader:
    """Return what IHDR and sBIT say; 8 bits where the file ends before."""
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
    """Return a PNG without its text and colour profile; None if the file is no PNG.

    EXIF that is kept as text stays: it may say how the picture lies.
    """
    with path.open("rb") as stream:
        if stream.read(len(PNG)) != PNG:
            return None
        stream.seek(0)
        kept = [PNG]
        for name, length in _png_chunks(stream):
            place = stream.tell()
            start = stream.read(min(length, len(_EXIF_IN_TEXT)))
            exif = start == _EXIF_IN_TEXT and length < _LARGEST_EXIF
            if name not in _PNG_TEXT or exif:
                stream.seek(place - 8)
                kept.append(stream.read(12 + length))
    return b"".join(kept)


def _png_chunks(stream: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield name and length of each chunk, the stream being at its content."""
    place = len(PNG)
    while True:
        stream.seek(place)
        head = stream.read(8)
        if len(head) < 8:
            return
        length, name = struct.unpack(">I4s", head)
        yield name, length
        place += 12 + length


def largest_pnm_value(path: Path) -> int:
    """Return what a PNM file gives as its largest sample; 255 where it gives none (PBM, PAM)."""
    with path.open("rb") as stream:
        start = stream.read(4096)
    words = re.sub(rb"#[^\n]*\n", b" ", start).split(maxsplit=4)
    numbered = len(words) > 3 and words[0] in (b"P2", b"P3", b"P5", b"P6") and words[3].isdigit()
    return int(words[3]) if numbered else 255


def is_lossy(path: Path, image: Image.Image) -> bool:
    """Whether an image was compressed in a way that does not keep its pixels."""
    if image.format in ("JPEG", "MPO", "AVIF"):
        return True
    if image.format == "TIFF":
        return str(image.info.get("compression")) in _JPEG_IN_TIFF
    if image.format not in ("WEBP", "JPEG2000"):
        return False
    with path.open("rb") as stream:
        start = stream.read(2**16)
    if image.format == "WEBP":
        return b"VP8L" not in start
    code = start.find(b"\xff\x52", start.find(b"\xff\x4f\xff\x51"))  # COD: coding style
    return code < 0 or start[code + 13 : code + 14] != b"\1"  # 1: the reversible wavelet
