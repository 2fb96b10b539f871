"""Compressed pixel data: from fragments to frames (PS3.5 A.4), decoded with imagecodecs.

A stream takes precedence over the header: it says which colour space its three components have.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from sam2unet_core.dicom.files import name_of
from sam2unet_core.errors import InputError, Reason

Stored = NDArray[Any]
_JPEG = "1.2.840.10008.1.2.4."
DCT_SYNTAXES = tuple(f"{_JPEG}{n}" for n in (50, 51, 52, 53, 54, 55, 56, 57, 58, 70))
WAVELET_SYNTAXES = tuple(f"{_JPEG}{n}" for n in (90, 91, 201, 202, 203))
XL_SYNTAXES = tuple(f"{_JPEG}{n}" for n in (110, 111, 112))
"""JPEG, with its retired and lossless processes; JPEG 2000 and HTJ2K; JPEG XL."""
_LS = tuple(f"{_JPEG}{n}" for n in (80, 81))
_WAVELET_SIGNATURES = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
_XL_SIGNATURES = (b"\xff\x0a", b"\0\0\0\x0cJXL ")
_END = b"\xff\xd9"
_FILLER = b"\x5a" * 512
_RAW = imagecodecs.JPEG8.CS.RGB
"""The same colour space in and out: libjpeg converts nothing."""


@dataclass(frozen=True)
class JpegMarkers:
    """Markers of a JPEG stream (ITU-T T.81, JFIF 1.02, Adobe TN 5116).

    Attributes:
        ids: component identifiers.
        subsampled: whether components differ in their sampling.
        lossless: whether it is coded by prediction (process 14), not by DCT.
        jfif: whether there is a JFIF marker.
        adobe: the colour transform of an Adobe marker (0 none, 1 YCbCr, 2 YCCK), or None.
    """

    ids: tuple[int, ...] = ()
    subsampled: bool = False
    lossless: bool = False
    jfif: bool = False
    adobe: int | None = None


def jpeg_markers(stream: bytes) -> JpegMarkers:
    """Read the markers before the first scan of a JPEG stream, which may be truncated."""
    found: dict[str, Any] = {}
    position = 2
    while position + 4 <= len(stream):
        if stream[position] != 0xFF or stream[position + 1] in (0xFF, 0x00, 0x01):
            position += 1
            continue
        kind = stream[position + 1]
        length = int.from_bytes(stream[position + 2 : position + 4], "big")
        body = stream[position + 4 : position + 2 + length]
        position += 2 + length
        if kind == 0xDA:
            break
        if kind == 0xE0 and body.startswith(b"JFIF"):
            found["jfif"] = True
        elif kind == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            found["adobe"] = body[11]
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC) and len(body) >= 6:
            parts = [body[6 + 3 * i : 9 + 3 * i] for i in range(body[5])]
            found["ids"] = tuple(part[0] for part in parts if part)
            found["subsampled"] = len({part[1] for part in parts if len(part) > 1}) > 1
            found["lossless"] = kind in (0xC3, 0xC7, 0xCB, 0xCF)
    return JpegMarkers(**found)


def is_concealed(stream: bytes, stored: Stored, *, syntax: str) -> bool:
    """Whether the decoder filled in pixels that a truncated JPEG stream lacks.

    libjpeg does so silently. Bytes inserted before the end marker change the result only if pixels
    were missing. False for other compressions, where this is not known. `stored` is the decoded
    frame.
    """
    if syntax not in DCT_SYNTAXES:
        return False
    end = stream.rfind(_END)
    end = len(stream) if end < 0 else end
    try:
        longer = _decoded_jpeg(stream[:end] + _FILLER + _END)
    except Exception:  # lossless streams may reject the extra bytes
        return True
    return not np.array_equal(longer, stored)


def wavelet_colour(stream: bytes) -> bool:
    """Whether a JPEG 2000 codestream uses a colour transform (ISO 15444-1 A.6.1)."""
    position = stream.find(b"\xff\x52")  # COD: coding style
    return 0 <= position < len(stream) - 9 and stream[position + 8] == 1


def syntax_of(stream: bytes, stated: str) -> str:
    """Return the transfer syntax of a stream: the stated one, or that of its signature.

    JPEG families are recognised by signature, since some files state another one.
    """
    if not stated.startswith(_JPEG):
        return stated
    if stream.startswith(_WAVELET_SIGNATURES):
        family = WAVELET_SYNTAXES
    elif stream.startswith(_XL_SIGNATURES):
        family = XL_SYNTAXES
    elif stream.startswith(b"\xff\xd8\xff"):
        family = _LS if _is_jpeg_ls(stream) else DCT_SYNTAXES
    else:
        return stated
    return stated if stated in family else family[0]


def _is_jpeg_ls(stream: bytes) -> bool:
    """Whether the first frame header is that of JPEG-LS (ISO 14495-1 C.1.1)."""
    position = 2
    while position + 4 <= len(stream) and stream[position] == 0xFF:
        kind = stream[position + 1]
        if kind == 0xF7 or (0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC)):
            return kind == 0xF7
        position += 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
    return False


def decode(stream: bytes, dataset: Dataset, *, syntax: str) -> Stored:
    """Decode the compressed stream of one frame, whose `syntax` is from `syntax_of`.

    Returns:
        stored: `(H, W)` or `(H, W, 3)` integers as stored, without colour conversion except that of
        JPEG 2000 itself.

    Raises:
        InputError: no decoder for the transfer syntax, or a broken stream.
    """
    decoder = _DECODERS.get(syntax)
    if decoder is None:
        raise InputError(
            f"the transfer syntax {name_of(syntax)} is not supported; convert it, for example with "
            "dcmdjpeg or gdcmconv",
            reason=Reason.UNSUPPORTED_TRANSFER_SYNTAX,
        )
    return decoder(stream, dataset)


def _jpeg(stream: bytes, _: Dataset) -> Stored:
    if stream.rfind(_END) >= 0:
        return _decoded_jpeg(stream)
    stored = _decoded_jpeg(stream + _END)  # some writers omit the marker
    if is_concealed(stream, stored, syntax=DCT_SYNTAXES[0]):
        raise InputError(
            "the JPEG stream is truncated; copy or export the file again",
            reason=Reason.TRUNCATED,
        )
    return stored


def _decoded_jpeg(stream: bytes) -> Stored:
    raw = _RAW if len(jpeg_markers(stream).ids) == 3 else None
    return np.asarray(imagecodecs.jpeg8_decode(stream, colorspace=raw, outcolorspace=raw))


def _jpeg_ls(stream: bytes, _: Dataset) -> Stored:
    return np.asarray(imagecodecs.jpegls_decode(stream))


def _jpeg_2000(stream: bytes, _: Dataset) -> Stored:
    return np.asarray(imagecodecs.jpeg2k_decode(stream))  # OpenJPEG also decodes HTJ2K


def _jpeg_xl(stream: bytes, _: Dataset) -> Stored:
    return np.asarray(imagecodecs.jpegxl_decode(stream))


def _rle(stream: bytes, dataset: Dataset) -> Stored:
    """PS3.5 annex G: planes of bytes, the most significant first, sample after sample."""
    rows, columns, samples = int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel)
    bits = int(dataset.BitsAllocated)
    dtype = np.dtype(f"<u{max(1, bits // 8)}")
    unpacked = imagecodecs.dicomrle_decode(stream, dtype)
    values = np.frombuffer(unpacked, dtype)
    if bits == 1:
        values = np.unpackbits(values, bitorder="little")
    values = _exactly(values, samples * rows * columns)
    planes = values.reshape(samples, rows, columns)
    return planes[0] if samples == 1 else np.moveaxis(planes, 0, 2)


def _deflated(stream: bytes, dataset: Dataset) -> Stored:
    """PS3.5 annex A.4.14: the bytes of the uncompressed frame, deflated."""
    rows, columns, samples = int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel)
    dtype = np.dtype(f"<u{max(1, int(dataset.BitsAllocated) // 8)}")
    most = rows * columns * samples * dtype.itemsize
    values = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream, most + 2)
    found = _exactly(
        np.frombuffer(values[: len(values) // dtype.itemsize * dtype.itemsize], dtype),
        most // dtype.itemsize,
    )
    if samples == 1:
        return found.reshape(rows, columns)
    if dataset.get("PlanarConfiguration") == 1:
        return np.moveaxis(found.reshape(samples, rows, columns), 0, 2)
    return found.reshape(rows, columns, samples)


def _exactly(values: Stored, count: int) -> Stored:
    if len(values) < count:
        raise InputError(
            f"the frame ends after {len(values)} of {count} values; copy the file again",
            reason=Reason.TRUNCATED,
        )
    return values[:count]


_DECODERS: dict[str, Callable[[bytes, Dataset], Stored]] = {
    **dict.fromkeys(DCT_SYNTAXES, _jpeg),
    **dict.fromkeys(_LS, _jpeg_ls),
    **dict.fromkeys(WAVELET_SYNTAXES, _jpeg_2000),
    **dict.fromkeys(XL_SYNTAXES, _jpeg_xl),
    "1.2.840.10008.1.2.5": _rle,
    "1.2.840.10008.1.2.8.1": _deflated,
}
"""Decoders by transfer syntax (PS3.5 A.4, PS3.6 A)."""


Fragment = tuple[int, int]
"""Offset and length in bytes of a fragment's value in the file."""

_ITEM = (0xFFFE, 0xE000)
_END_OF_SEQUENCE = (0xFFFE, 0xE0DD)
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
    position = start + value_offset(file.read(12))
    file.seek(position)
    if file.read(4) != struct.pack("<HH", *_ITEM):  # whatever length is stated
        raise InputError(
            "the pixel data are not encapsulated, as the transfer syntax requires",
            reason=Reason.CORRUPT,
        )
    found: list[Fragment] = []
    size = file.seek(0, io.SEEK_END)
    while position + 8 <= size:
        file.seek(position)
        group, element, length = struct.unpack("<HHL", file.read(8))
        if (group, element) == _END_OF_SEQUENCE:
            break
        if (group, element) != _ITEM:
            raise InputError("the fragments of the pixel data are broken", reason=Reason.CORRUPT)
        found.append((position + 8, min(length, size - position - 8)))
        position += 8 + length
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
    starts = _offsets(table, fragments) or _extended(dataset, fragments)
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


def _offsets(table: bytes, fragments: Sequence[Fragment]) -> list[int] | None:
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
    by_offset = {offset - fragments[0][0]: index for index, (offset, _) in enumerate(fragments)}
    if not offsets or offsets[0] != 0 or list(offsets) != sorted(set(offsets)):
        return None
    found = [by_offset.get(offset) for offset in offsets]
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


Colours = Literal["rgb", "ybr"]
_RGB_IDS = ((82, 71, 66), (114, 103, 98))
"""Component identifiers R, G, B in either case, as in libjpeg."""
_SAMPLE = 1 << 16
_TOLERANCE = 8
"""Levels outside 0 to 255 that lossy compression explains."""
_OUTSIDE_RGB = {"ybr": 0.05, "rgb": 0.005}
"""Share of pixels outside RGB above which components cannot be YCbCr, by their label."""
_FLAT = 2.0
"""Standard deviation below which a picture shows nothing."""
_NO_COLOUR = 3.0
"""Deviation from the middle up to which there are no colour differences."""
_CORRELATED = 0.5
"""Correlation above which two components are colours, not colour differences."""


class ColourRule:
    """Determines the colour space of an instance's frames.

    A JPEG stream states it by markers, component identifiers or sub-sampling. Otherwise the label
    in the header holds, unless the pixels contradict it: dark or saturated colours read as YCbCr
    lie outside RGB, and green and blue correlate, which colour differences do not. What the pixels
    show in one frame holds for the following ones. JPEG 2000 and JPEG XL give RGB if the stream
    transforms colours; otherwise the header holds.
    """

    def __init__(self, photometric: str) -> None:
        self._labelled: Colours = "ybr" if photometric.startswith("YBR_FULL") else "rgb"
        self._decided: Colours | None = None

    def __call__(
        self, stored: NDArray[Any], *, syntax: str = "", stream: bytes = b"", bits: int = 8
    ) -> Colours:
        """Return the colour space of a frame, `(H, W, 3)` components of `bits` bits as decoded.

        `syntax` and `stream` are empty for uncompressed frames.
        """
        if syntax in DCT_SYNTAXES:
            stated = _colours_stated(jpeg_markers(stream))
            return stated or self._guessed(stored, bits)
        if syntax in XL_SYNTAXES or (syntax in WAVELET_SYNTAXES and wavelet_colour(stream)):
            return "rgb"
        return self._labelled

    def _guessed(self, stored: NDArray[Any], bits: int) -> Colours:
        """Return the colour space shown by the first frame with a clear answer."""
        if self._decided is None:
            flat = stored.reshape(-1, 3)
            flat = flat[:: max(1, len(flat) // _SAMPLE)].astype(np.float64) / 2.0 ** (bits - 8)
            self._decided = _shown_by(flat, self._labelled)
        return self._decided or self._labelled


def _colours_stated(markers: JpegMarkers) -> Colours | None:
    """Return the colour space that a JPEG stream states, or None."""
    if markers.adobe is not None:
        return "rgb" if markers.adobe == 0 else "ybr"
    if markers.jfif or markers.subsampled:
        return "ybr"
    return "rgb" if markers.ids in _RGB_IDS else None


def _shown_by(flat: NDArray[np.float64], labelled: Colours) -> Colours | None:
    """Return the colour space that `(N, 3)` components show, or None if unclear."""
    spread, middle = flat.std(axis=0), flat.mean(axis=0)
    if max(spread[1:]) < _NO_COLOUR and max(np.abs(middle[1:] - 128)) < _NO_COLOUR:
        return "ybr"  # a grey picture
    if max(spread) < _FLAT:
        return None
    outside = _share_outside_rgb(flat)
    if labelled == "ybr":
        return "rgb" if outside > _OUTSIDE_RGB["ybr"] else "ybr"
    correlated = min(spread[1:]) == 0 or np.corrcoef(flat[:, 1], flat[:, 2])[0, 1] >= _CORRELATED
    return "rgb" if outside > _OUTSIDE_RGB["rgb"] or correlated else "ybr"


def _share_outside_rgb(flat: NDArray[np.float64]) -> float:
    """Return the share of pixels that, read as YCbCr, lie outside RGB (PS3.3 C.7.6.3.1.2)."""
    luma, blue, red = flat[:, 0], flat[:, 1] - 128, flat[:, 2] - 128
    rgb = (luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue)
    outside = np.zeros(len(flat), bool)
    for channel in rgb:
        outside |= (channel < -_TOLERANCE) | (channel > 255 + _TOLERANCE)
    return float(outside.mean()) if len(outside) else 0.0
