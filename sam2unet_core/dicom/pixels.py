"""Decode frames and render them as a viewer would: stored values to 8-bit RGB.

The pipeline is that of DICOM PS3.3 C.11: modality LUT or rescale, then VOI LUT or window, then the
photometric interpretation. Colour is converted by its palette or colour matrix.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels import convert_color_space, get_decoder
from pydicom.uid import DeflatedExplicitVRLittleEndian

from sam2unet_core.dicom.attributes import FLOATS, PixelElement, pixel_element
from sam2unet_core.dicom.codecs import (
    ColourRule,
    decode,
    is_concealed,
    read_frames,
    read_stream,
    syntax_of,
)
from sam2unet_core.dicom.files import is_encapsulated, name_of, quiet, quietly
from sam2unet_core.dicom.grey import GreyChain, Table, palette
from sam2unet_core.dicom.header import frame_count, open_header
from sam2unet_core.errors import InputError, Reason
from sam2unet_core.task import Window
from sam2unet_core.types import Caution, Indices

Pixels = NDArray[np.uint8]
Shown = tuple[int, Pixels, tuple[Caution, ...]]
_LABELS = {
    "RGB": ("RGB",),
    "YBR_FULL": ("YCbCr",),
    "YBR_FULL_422": ("YCbCr",),
    "YBR_RCT": ("RGB",),
    "YBR_ICT": ("RGB",),
}
"""Photometric interpretations of colour, and the output of decoders for them."""
_SUPPORTED = ", ".join(("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", *_LABELS))
_BIG_ENDIAN = "1.2.840.10008.1.2.2"


@dataclass(frozen=True)
class _Stored:
    """A frame as stored, `(H, W)` or `(H, W, 3)`, and its compressed stream, if any.

    `syntax` is that of the stream, empty if not compressed; `concealed` tells whether the decoder
    filled in pixels; `clipped` is the share of pixels with more bits than Bits Stored.
    """

    index: int
    values: NDArray[Any]
    stream: bytes = b""
    syntax: str = ""
    concealed: bool = False
    clipped: float = 0.0


def iterate_frames(
    path: Path,
    dataset: Dataset,
    *,
    frames: int | None = None,
    window: Window | None = None,
    indices: Indices = None,
) -> Iterator[Shown]:
    """Decode the frames of an instance one at a time.

    Args:
        path: the file.
        dataset: its header, as `open_header` gives it.
        frames: actual number of frames; by default that of the header.
        window: replaces the file's own for CT.
        indices: frames to decode; all by default.

    Yields:
        The frame's 0-based index, its pixels, `(H, W, 3)` uint8 RGB, and what was guessed or
        ignored.

    Raises:
        InputError: no decoder for the transfer syntax, or broken data.
    """
    count = frames or frame_count(dataset)
    wanted = range(count) if indices is None else indices
    done = 0
    try:
        with quiet():
            render = _Renderer(dataset, window)
        for stored in quietly(_stored(path, dataset, wanted, count)):
            with quiet():
                pixels, cautions = render(stored)
            yield stored.index, pixels, (*_stream_cautions(stored, dataset), *cautions)
            done += 1
    except InputError:
        raise
    except Exception as error:  # decoders fail in many ways on broken data
        raise _decoding_error(error, dataset) from error
    if done < len(wanted):
        raise InputError(
            f"the file holds {done} of {len(wanted)} frames; copy it again",
            reason=Reason.TRUNCATED,
        )


def _stored(path: Path, dataset: Dataset, indices: Sequence[int], count: int) -> Iterator[_Stored]:
    """Yield the frames with these indices, up to the end of the file."""
    with ExitStack() as stack:
        syntax = dataset.file_meta.TransferSyntaxUID
        if syntax == DeflatedExplicitVRLittleEndian:
            found = dcmread(path, force=True)["PixelData"]
            inflated, size = found.value, len(found.value)
            whole = PixelElement("PixelData", 0, size, size, found.VR)
            yield from _native(io.BytesIO(inflated), dataset, whole, indices, count)
            return
        file = stack.enter_context(path.open("rb"))
        open_header(file)
        if is_encapsulated(syntax):
            yield from _compressed(file, dataset, indices)
            return
        element = pixel_element(dataset, file)
        if element is None:
            message = "the file no longer holds pixel data; copy it again"
            raise InputError(message, reason=Reason.TRUNCATED)
        yield from _native(file, dataset, element, indices, count)


def _compressed(file: BinaryIO, dataset: Dataset, indices: Sequence[int]) -> Iterator[_Stored]:
    frames = read_frames(file, dataset)
    for index in indices:
        if index >= len(frames):
            return
        stream = read_stream(file, frames[index])
        syntax = syntax_of(stream, str(dataset.file_meta.TransferSyntaxUID))
        values = decode(stream, dataset, syntax=syntax)
        concealed = is_concealed(stream, values, syntax=syntax)
        yield _Stored(index, _as_described(values, dataset), stream, syntax, concealed)


def _stream_cautions(stored: _Stored, dataset: Dataset) -> tuple[Caution, ...]:
    """Return the cautions about a frame's encoding."""
    found = []
    stated = str(dataset.file_meta.TransferSyntaxUID)
    if stored.syntax not in ("", stated):
        names = name_of(stated), name_of(stored.syntax)
        text = f"TransferSyntaxUID is {names[0]}, but the frames are encoded as {names[1]}"
        found.append(Caution("value_ignored", text))
    if stored.concealed:
        text = "the JPEG stream is damaged, and the decoder filled in missing pixels"
        found.append(Caution("pixels_concealed", text))
    if stored.clipped:
        text = (
            f"BitsStored is {dataset.BitsStored}, but {stored.clipped:.2%} of the pixels use more; "
            "the higher bits were dropped"
        )
        found.append(Caution("value_ignored", text))
    return tuple(found)


def _native(
    file: BinaryIO, dataset: Dataset, element: PixelElement, indices: Sequence[int], count: int
) -> Iterator[_Stored]:
    """Yield uncompressed frames, in any byte order, bit depth, sub-sampling and planar form."""
    if element.keyword in FLOATS:
        yield from _floats(file, dataset, element, indices)
        return
    file.seek(element.offset)
    syntax = dataset.file_meta.TransferSyntaxUID
    options = {
        "rows": int(dataset.Rows),
        "columns": int(dataset.Columns),
        "number_of_frames": count,
        "samples_per_pixel": int(dataset.SamplesPerPixel),
        "photometric_interpretation": str(dataset.PhotometricInterpretation),
        "planar_configuration": int(dataset.get("PlanarConfiguration") or 0),
        "bits_allocated": int(dataset.BitsAllocated),
        "bits_stored": int(dataset.BitsStored),
        "pixel_representation": int(dataset.PixelRepresentation),
        "pixel_keyword": "PixelData",
        "pixel_vr": element.vr,
        "correct_unused_bits": False,  # `_as_described` does it
    }
    decoder = get_decoder(syntax)
    for index in indices:
        values, _ = decoder.as_array(file, index=index, raw=True, validate=False, **options)
        described = _as_described(values, dataset)
        clipped = 0.0 if _has_overlay_bits(dataset) else _share_clipped(values, described)
        yield _Stored(index, _aligned(described, dataset), clipped=clipped)


def _floats(
    file: BinaryIO, dataset: Dataset, element: PixelElement, indices: Sequence[int]
) -> Iterator[_Stored]:
    order = ">" if dataset.file_meta.TransferSyntaxUID == _BIG_ENDIAN else "<"
    dtype = np.dtype(f"{order}f{FLOATS[element.keyword] // 8}")
    size = int(dataset.Rows) * int(dataset.Columns)
    for index in indices:
        file.seek(element.offset + index * size * dtype.itemsize)
        content = file.read(size * dtype.itemsize)
        if len(content) < size * dtype.itemsize:
            return
        values = np.frombuffer(content, dtype).reshape(int(dataset.Rows), int(dataset.Columns))
        yield _Stored(index, values.astype(np.float64))


def _as_described(values: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    """Give grey values the sign and depth of the header, with sign extension above Bits Stored."""
    if values.ndim == 3 or dataset.BitsAllocated == 1 or values.dtype.kind == "f":
        return values
    kind = "i" if dataset.PixelRepresentation == 1 else "u"
    if values.dtype.kind != kind:
        values = values.view(values.dtype.newbyteorder("=").str.replace(values.dtype.kind, kind))
    if int(dataset.HighBit) >= int(dataset.BitsStored):
        return values  # stored in higher bits; see `_aligned`
    unused = max(0, 8 * values.dtype.itemsize - int(dataset.BitsStored))
    return values << unused >> unused if unused else values


def _share_clipped(values: NDArray[Any], described: NDArray[Any]) -> float:
    """Return the share of unsigned values that have changed."""
    if values.dtype.kind != "u" or described.dtype.kind != "u":
        return 0.0
    return float((values != described).mean())


def _has_overlay_bits(dataset: Dataset) -> bool:
    """Whether unused bits hold overlays, as files before 2004 may (PS3.3 C.9.2, retired)."""
    positions = (dataset.get((group, 0x0102)) for group in range(0x6000, 0x6020, 2))
    return any(each is not None and each.value for each in positions)


def _aligned(values: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    """Shift values stored in higher bits down to bit 0, as for old files."""
    kept, high = int(dataset.BitsStored), int(dataset.HighBit)
    if values.ndim == 3 or dataset.BitsAllocated == 1 or high < kept:
        return values
    above = 8 * values.dtype.itemsize - (high + 1)
    return values << above >> above + (high + 1 - kept)


class _Renderer:
    """Renders the stored frames of one instance as RGB."""

    def __init__(self, dataset: Dataset, window: Window | None) -> None:
        self._dataset = dataset
        self._photometric = str(dataset.PhotometricInterpretation)
        self._size = (int(dataset.Rows), int(dataset.Columns))
        self._colours = ColourRule(self._photometric)
        self._grey: GreyChain | None = None
        self._palette: tuple[Table, Table, Table] | None = None
        if self._photometric == "PALETTE COLOR":
            self._palette = _palette_of(dataset)
        elif self._photometric in ("MONOCHROME1", "MONOCHROME2"):
            self._grey = GreyChain(dataset, window)
        elif self._photometric not in _LABELS:
            raise InputError(
                f"unknown photometric interpretation; expected one of {_SUPPORTED}",
                reason=Reason.UNSUPPORTED_TRANSFER_SYNTAX,
            )

    def __call__(self, stored: _Stored) -> tuple[Pixels, tuple[Caution, ...]]:
        values = stored.values
        if values.shape[:2] != self._size:
            raise InputError(
                f"a frame of {values.shape[:2]}, but the header states {self._size}",
                reason=Reason.CORRUPT,
            )
        if values.ndim == 3:
            return self._coloured(stored)
        if self._grey is not None:
            grey, cautions = self._grey(values, stored.index)
            return np.repeat(grey[:, :, None], 3, axis=2), cautions
        if self._palette is not None:
            channels = [_to_eight_bits(t(values), t.bits) for t in self._palette]
            return np.stack(channels, axis=2), ()
        return self._mislabelled_grey(values)

    def _mislabelled_grey(self, values: NDArray[Any]) -> tuple[Pixels, tuple[Caution, ...]]:
        """Render frames with one component although the file is labelled as colour."""
        text = f"labelled {self._photometric}, but each pixel has one value; shown as grey"
        grey = _to_eight_bits(values, self._bits(values))
        return np.repeat(grey[:, :, None], 3, axis=2), (Caution("photometric_corrected", text),)

    def _coloured(self, stored: _Stored) -> tuple[Pixels, tuple[Caution, ...]]:
        if stored.values.shape[2] != 3:
            raise InputError(
                f"{stored.values.shape[2]} values per pixel; expected 1 or 3", reason=Reason.CORRUPT
            )
        bits = self._bits(stored.values)
        found = self._colours(stored.values, syntax=stored.syntax, stream=stored.stream, bits=bits)
        pixels = _to_eight_bits(stored.values, bits)
        if found == "ybr":
            pixels = convert_color_space(pixels, "YBR_FULL", "RGB")
        shown = {"ybr": "YCbCr", "rgb": "RGB"}[found]
        if shown in _LABELS.get(self._photometric, ()):
            return pixels, ()
        text = f"labelled {self._photometric}, but the pixels are {shown}; shown as such"
        return pixels, (Caution("photometric_corrected", text),)

    def _bits(self, values: NDArray[Any]) -> int:
        return min(int(self._dataset.BitsStored), 8 * values.dtype.itemsize)


def _palette_of(dataset: Dataset) -> tuple[Table, Table, Table]:
    try:
        return palette(
            dataset,
            signed=dataset.PixelRepresentation == 1,
            little_endian=dataset.file_meta.TransferSyntaxUID != _BIG_ENDIAN,
        )
    except Exception as error:  # a table breaks in many ways
        raise InputError(
            "the palette (Red, Green, Blue Palette Color Lookup Table) cannot be read; export the "
            "file again",
            reason=Reason.CORRUPT,
        ) from error


def _to_eight_bits(values: NDArray[Any], bits: int) -> Pixels:
    if bits == 8:
        return np.asarray(values, np.uint8)
    scaled = np.rint(values.astype(np.float64) * (255.0 / (2**bits - 1)))
    pixels: Pixels = np.clip(scaled, 0, 255).astype(np.uint8)
    return pixels


def _decoding_error(error: Exception, dataset: Dataset) -> InputError:
    """Explain why decoding failed, without the error's text, which may quote the file."""
    syntax = name_of(str(dataset.file_meta.TransferSyntaxUID))
    text = str(error).lower()
    if not is_encapsulated(dataset.file_meta.TransferSyntaxUID) and isinstance(
        error, NotImplementedError
    ):
        return InputError(
            f"BitsAllocated is {dataset.BitsAllocated}, not supported; export it with 8 or 16",
            reason=Reason.UNSUPPORTED_TRANSFER_SYNTAX,
        )
    unsupported = ("does not support", "not supported", "unsupported", "not implemented")
    if isinstance(error, NotImplementedError) or any(part in text for part in unsupported):
        return InputError(
            f"no decoder for this form of {syntax}; convert it, for example with dcmdjpeg",
            reason=Reason.UNSUPPORTED_TRANSFER_SYNTAX,
        )
    if isinstance(error, MemoryError):
        return InputError("out of memory for a frame", reason=Reason.OUT_OF_MEMORY)
    truncated = isinstance(error, EOFError) or "less than expected" in text or "end of" in text
    return InputError(
        f"the pixel data ({syntax}) cannot be decoded ({type(error).__name__}); copy it again",
        reason=Reason.TRUNCATED if truncated else Reason.CORRUPT,
    )
