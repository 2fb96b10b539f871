"""Facts about image files that decoders do not report, read from their headers.

TIFF files of 9 to 16 bits per sample are decoded here, too: Pillow keeps only 8 bits of 16-bit
colours and does not support every grey format; libtiff, by imagecodecs, does.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from sam2unet_core.errors import DataError

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


WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
UNSIGNED = 1
_PHOTOMETRIC, _BITS, _COLUMNS, _ROWS, _SAMPLES, _PLANES = 262, 258, 256, 257, 277, 284
_ORIENTATION, _EXTRA, _FORMAT = 274, 338, 339
_STRIPS_AND_TILES = ((273, 279), (324, 325))
_UNASSOCIATED_ALPHA = 2
"""ExtraSamples: alpha that is not multiplied into the colours."""
Turn = Callable[[NDArray[Any]], NDArray[Any]]
UPRIGHT: dict[int, Turn] = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p, 1),
}
"""Transforms that turn stored pixels upright, by EXIF orientation."""


def deep_tags(path: Path) -> dict[int, Any]:
    """Return the tags of a TIFF that `deep_samples` reads; empty for any other file.

    Raises:
        DataError: such a file with more than one picture.
    """
    tags, following = _directory(path)
    sized = all(isinstance(tags.get(tag), int) for tag in (_COLUMNS, _ROWS))
    if not sized or not _is_deep(tags):
        return {}
    if following:
        raise DataError(f"{path}: holds several frames; save each as a file of its own")
    return tags


def is_truncated_tiff(path: Path) -> bool:
    """Whether the samples of a TIFF lie beyond the end of the file; False for other files."""
    tags, _ = _directory(path)
    size = path.stat().st_size
    for starts, lengths in _STRIPS_AND_TILES:
        chunks = zip(
            np.atleast_1d(tags.get(starts, ())), np.atleast_1d(tags.get(lengths, ())), strict=False
        )
        if any(int(start) + int(length) > size for start, length in chunks):
            return True
    return False


def deep_samples(path: Path, tags: dict[int, Any]) -> NDArray[np.uint16]:
    """Decode the samples of a TIFF, upright and with 0 as black.

    Returns:
        samples: `(H, W)` grey, `(H, W, 3)` RGB or `(H, W, 4)` RGBA at the bit depth of the file;
            grey with transparency has three equal channels.

    Raises:
        DataError: too many pixels, or an unsupported format.
    """
    if int(tags[_COLUMNS]) * int(tags[_ROWS]) > 2 * (Image.MAX_IMAGE_PIXELS or np.inf):
        raise Image.DecompressionBombError(f"{tags[_COLUMNS]} x {tags[_ROWS]} pixels")
    if not _is_deep(tags):
        raise unsupported_depth(path)
    import imagecodecs  # noqa: PLC0415 - takes a tenth of a second, and few files need it

    found: NDArray[np.uint16] = imagecodecs.tiff_decode(path.read_bytes())
    if found.ndim == 3 and tags.get(_PLANES) == 2:
        found = np.moveaxis(found, 0, 2)
    colours = 3 if tags[_PHOTOMETRIC] == RGB else 1
    shown = found if found.ndim == 2 else found[..., :colours]
    if tags[_PHOTOMETRIC] == WHITE_IS_ZERO:
        shown = np.subtract(2 ** _bits(tags)[0] - 1, shown, dtype=np.uint16)
    if found.ndim == 3:
        shown = _with_alpha(shown, found[..., colours:], tags)
    turn = UPRIGHT.get(int(tags.get(_ORIENTATION, 1)), np.asarray)
    return np.ascontiguousarray(turn(shown))


def unsupported_depth(path: Path) -> DataError:
    """Return the error for samples of more than 8 bits that cannot be decoded in full."""
    return DataError(
        f"{path}: colours of more than 8 bits in an unsupported format; save it with 8 bits, or as "
        "PNG"
    )


def _directory(path: Path) -> tuple[dict[int, Any], int]:
    """Return the tags of the first directory and the offset of the next, 0 for none."""
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
            head += stream.read(8) if head[2:4] in (b"+\0", b"\0+") else b""  # BigTIFF
            directory = TiffImagePlugin.ImageFileDirectory_v2(head)
            first = directory.next
            stream.seek(first)
            directory.load(stream)
            following = directory.next
            return dict(directory), 0 if following == first else following
    except Exception:  # not a TIFF
        return {}, 0


def _with_alpha(
    colours: NDArray[np.uint16], extra: NDArray[np.uint16], tags: dict[int, Any]
) -> NDArray[np.uint16]:
    """Return colours with the first extra sample if it is an unassociated alpha."""
    kind = (*np.atleast_1d(tags.get(_EXTRA, ())), 0)[0]
    if kind != _UNASSOCIATED_ALPHA or not extra.shape[2]:
        return colours[..., 0] if colours.shape[2] == 1 else colours
    rgb = np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else colours
    return np.concatenate([rgb, extra[..., :1]], axis=2)


def _is_deep(tags: dict[int, Any]) -> bool:
    bits, photometric = _bits(tags), tags.get(_PHOTOMETRIC)
    wanted = {16} if len(bits) > 1 else set(range(9, 17))
    unsigned = set(np.atleast_1d(tags.get(_FORMAT, UNSIGNED))) == {UNSIGNED}
    samples = int(tags.get(_SAMPLES, 1))
    enough = samples >= 3 if photometric == RGB else photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
    return unsigned and enough and set(bits) <= wanted


def _bits(tags: dict[int, Any]) -> tuple[int, ...]:
    return tuple(int(each) for each in np.atleast_1d(tags.get(_BITS, 1)))
