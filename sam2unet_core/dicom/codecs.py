"""Decode compressed frames with imagecodecs: one stream in, one array out."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from sam2unet_core.dicom.storage import name_of
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
    place = 2
    while place + 4 <= len(stream):
        if stream[place] != 0xFF or stream[place + 1] in (0xFF, 0x00, 0x01):
            place += 1
            continue
        kind, length = stream[place + 1], int.from_bytes(stream[place + 2 : place + 4], "big")
        body = stream[place + 4 : place + 2 + length]
        place += 2 + length
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
    place = stream.find(b"\xff\x52")  # COD: coding style
    return 0 <= place < len(stream) - 9 and stream[place + 8] == 1


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
    place = 2
    while place + 4 <= len(stream) and stream[place] == 0xFF:
        kind = stream[place + 1]
        if kind == 0xF7 or (0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC)):
            return kind == 0xF7
        place += 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
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
