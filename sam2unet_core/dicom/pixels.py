"""Decode frames and show them the way a viewer would: stored values to 8-bit RGB.

The chain is that of DICOM PS3.3 C.11: modality LUT or rescale, then VOI LUT or window, then the
photometric interpretation. Colour goes through its palette or colour matrix.
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
from sam2unet_core.dicom.codecs import decode, is_concealed, syntax_of
from sam2unet_core.dicom.colour import ColourRule
from sam2unet_core.dicom.encapsulated import read_frames, read_stream
from sam2unet_core.dicom.grey import GreyChain
from sam2unet_core.dicom.header import frame_count, open_header
from sam2unet_core.dicom.lookup import Table, palette
from sam2unet_core.dicom.quiet import quiet, quietly
from sam2unet_core.dicom.storage import is_encapsulated, name_of
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
"""Photometric interpretations of colour, and what a decoder gives for them."""
_READ = ", ".join(("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", *_LABELS))
_BIG_ENDIAN = "1.2.840.10008.1.2.2"


@dataclass(frozen=True)
class _Stored:
    """A frame as it is stored, `(H, W)` or `(H, W, 3)`, and its compressed stream, if any.

    `syntax` is what the stream is of, empty for what is not compressed; `concealed` whether pixels
    were made up in decoding it, `cut` the share of pixels that have more bits than Bits Stored.
    """

    index: int
    values: NDArray[Any]
    stream: bytes = b""
    syntax: str = ""
    concealed: bool = False
    cut: float = 0.0


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
        frames: how many it holds; by default as many as its header says.
        window: replaces the file's own for CT.
        indices: which frames; all by default.

    Yields:
        The frame's 0-based index, its pixels, `(H, W, 3)` uint8 RGB, and what was guessed or left
        out in showing it.

    Raises:
        InputError: no decoder for the transfer syntax, or broken data.
    """
    count = frames or frame_count(dataset)
    wanted = range(count) if indices is None else indices
    done = 0
    try:
        with quiet():
            show = _Display(dataset, window)
        for stored in quietly(_stored(path, dataset, wanted, count)):
            with quiet():
                pixels, cautions = show(stored)
            yield stored.index, pixels, (*_of_stream(stored, dataset), *cautions)
            done += 1
    except InputError:
        raise
    except Exception as error:  # decoders fail in many ways on broken data
        raise _explained(error, dataset) from error
    if done < len(wanted):
        raise InputError(
            f"{done} of {len(wanted)} frames are there; copy the file again",
            reason=Reason.TRUNCATED,
        )


def _stored(path: Path, dataset: Dataset, indices: Sequence[int], count: int) -> Iterator[_Stored]:
    """Yield the frames with these indices, as far as they are there."""
    with ExitStack() as stack:
        syntax = dataset.file_meta.TransferSyntaxUID
        if syntax == DeflatedExplicitVRLittleEndian:
            found = dcmread(path, force=True)["PixelData"]
            inflated, size = found.value, len(found.value)
            element = PixelElement("PixelData", 0, size, size, found.VR)
            yield from _native(io.BytesIO(inflated), dataset, element, indices, count)
            return
        file = stack.enter_context(path.open("rb"))
        open_header(file)
        if is_encapsulated(syntax):
            yield from _compressed(file, dataset, indices)
            return
        there = pixel_element(dataset, file)
        if there is None:
            raise InputError(
                "the pixel data are gone; copy the file again", reason=Reason.TRUNCATED
            )
        yield from _native(file, dataset, there, indices, count)


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


def _of_stream(stored: _Stored, dataset: Dataset) -> tuple[Caution, ...]:
    """Return what is to be told of a frame's compressed stream."""
    found = []
    stated = str(dataset.file_meta.TransferSyntaxUID)
    if stored.syntax not in ("", stated):
        names = name_of(stated), name_of(stored.syntax)
        text = f"TransferSyntaxUID is that of {names[0]}; the frames are of {names[1]}"
        found.append(Caution("value_ignored", text))
    if stored.concealed:
        text = "the JPEG stream is damaged, and the decoder has filled in what is missing"
        found.append(Caution("pixels_concealed", text))
    if stored.cut:
        text = (
            f"BitsStored is {dataset.BitsStored}, but {stored.cut:.2%} of the pixels take more bits"
        )
        found.append(Caution("value_ignored", f"{text}; those above it were cut off"))
    return tuple(found)


def _native(
    file: BinaryIO, dataset: Dataset, element: PixelElement, indices: Sequence[int], count: int
) -> Iterator[_Stored]:
    """Yield uncompressed frames: big-endian, one bit, sub-sampled and in planes as they may be."""
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
        cut = 0.0 if _has_overlay_bits(dataset) else _share_cut(values, described)
        yield _Stored(index, _lowered(described, dataset), cut=cut)


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
    """Give grey values the sign and depth that the header says; colour has no sign.

    Bits above Bits Stored take the value that the sign asks for.
    """
    if values.ndim == 3 or dataset.BitsAllocated == 1 or values.dtype.kind == "f":
        return values
    kind = "i" if dataset.PixelRepresentation == 1 else "u"
    if values.dtype.kind != kind:
        values = values.view(values.dtype.newbyteorder("=").str.replace(values.dtype.kind, kind))
    if int(dataset.HighBit) >= int(dataset.BitsStored):
        return values  # they lie higher; see `_lowered`
    unused = max(0, 8 * values.dtype.itemsize - int(dataset.BitsStored))
    return values << unused >> unused if unused else values


def _share_cut(values: NDArray[Any], described: NDArray[Any]) -> float:
    """Return the share of unsigned values that are no longer what they were."""
    if values.dtype.kind != "u" or described.dtype.kind != "u":
        return 0.0
    return float((values != described).mean())


def _has_overlay_bits(dataset: Dataset) -> bool:
    """Whether unused bits hold overlays, as files before 2004 may (PS3.3 C.9.2, retired)."""
    positions = (dataset.get((group, 0x0102)) for group in range(0x6000, 0x6020, 2))
    return any(each is not None and each.value for each in positions)


def _lowered(values: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    """Bring values that end at a higher bit than the lowest down to it, as old files store them."""
    kept, high = int(dataset.BitsStored), int(dataset.HighBit)
    if values.ndim == 3 or dataset.BitsAllocated == 1 or high < kept:
        return values
    above = 8 * values.dtype.itemsize - (high + 1)
    return values << above >> above + (high + 1 - kept)


class _Display:
    """Turns the stored frames of one instance into RGB."""

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
                f"the photometric interpretation is not read: expected one of {_READ}",
                reason=Reason.UNSUPPORTED_TRANSFER_SYNTAX,
            )

    def __call__(self, stored: _Stored) -> tuple[Pixels, tuple[Caution, ...]]:
        values = stored.values
        if values.shape[:2] != self._size:
            raise InputError(
                f"a frame of {values.shape[:2]} where the header says {self._size}",
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
        return self._grey_after_all(values)

    def _grey_after_all(self, values: NDArray[Any]) -> tuple[Pixels, tuple[Caution, ...]]:
        """Show a stream of one component in a file that is labelled as colour."""
        text = f"labelled {self._photometric}, but each pixel has one value; shown as grey"
        grey = _to_eight_bits(values, self._bits(values))
        return np.repeat(grey[:, :, None], 3, axis=2), (Caution("photometric_corrected", text),)

    def _coloured(self, stored: _Stored) -> tuple[Pixels, tuple[Caution, ...]]:
        if stored.values.shape[2] != 3:
            raise InputError(
                f"{stored.values.shape[2]} values a pixel; expected 1 or 3", reason=Reason.CORRUPT
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


def _explained(error: Exception, dataset: Dataset) -> InputError:
    """Say why decoding failed; of the error only its kind is given, its text may quote the file."""
    syntax = name_of(str(dataset.file_meta.TransferSyntaxUID))
    text = str(error).lower()
    if not is_encapsulated(dataset.file_meta.TransferSyntaxUID) and isinstance(
        error, NotImplementedError
    ):
        return InputError(
            f"BitsAllocated is {dataset.BitsAllocated}, which is not read; export it with 8 or 16",
            reason=Reason.UNSUPPORTED_TRANSFER_SYNTAX,
        )
    unread = ("does not support", "not supported", "unsupported", "not implemented")
    if isinstance(error, NotImplementedError) or any(part in text for part in unread):
        return InputError(
            f"no decoder for this form of {syntax}; convert it, for instance with dcmdjpeg",
            reason=Reason.UNSUPPORTED_TRANSFER_SYNTAX,
        )
    if isinstance(error, MemoryError):
        return InputError("not enough memory for a frame", reason=Reason.OUT_OF_MEMORY)
    short = isinstance(error, EOFError) or "less than expected" in text or "end of" in text
    return InputError(
        f"the pixel data ({syntax}) cannot be decoded ({type(error).__name__}); copy it again",
        reason=Reason.TRUNCATED if short else Reason.CORRUPT,
    )
