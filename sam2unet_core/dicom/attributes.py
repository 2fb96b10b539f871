"""The description of the pixels, completed where writers left elements out (PS3.3 C.7.6.3)."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

from pydicom import Dataset

from sam2unet_core.dicom.encapsulated import value_offset
from sam2unet_core.dicom.numbers import Numbers, stored
from sam2unet_core.dicom.storage import is_encapsulated
from sam2unet_core.errors import InputError, Reason
from sam2unet_core.types import Caution

FLOATS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}
"""Pixel elements that hold floating-point numbers, and their bits."""
_TAGS = {
    (0x7FE0, 0x0008): "FloatPixelData",
    (0x7FE0, 0x0009): "DoubleFloatPixelData",
    (0x7FE0, 0x0010): "PixelData",
}
_SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1}
_DEEPEST = 64
_LARGEST_SIDE = 65535
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class PixelElement:
    """The element with the pixels.

    Attributes:
        keyword: `PixelData`, `FloatPixelData` or `DoubleFloatPixelData`.
        offset: where its value begins in the file.
        length: of its value in bytes, as stated; the rest of the file where it is undefined.
        there: bytes from `offset` to the end of the file.
        vr: its value representation, `OW` where the file names none.
        items: whether its value is a sequence of items, as that of compressed frames.
    """

    keyword: str
    offset: int
    length: int
    there: int
    vr: str = "OW"
    items: bool = False


def pixel_element(dataset: Dataset, stream: BinaryIO) -> PixelElement | None:
    """Return the pixel element that a stream is at, which it still is afterwards; None for none.

    In a deflated file the element is within the deflated data, so its place is not known.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == "1.2.840.10008.1.2.1.99":
        return PixelElement("PixelData", 0, 0, 0)
    order = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
    start = stream.tell()
    head = stream.read(16)
    size = stream.seek(0, os.SEEK_END)
    stream.seek(start)
    if len(head) < 4:
        return None
    keyword = _TAGS.get(struct.unpack(f"{order}HH", head[:4]))
    if keyword is None:
        return None
    before = value_offset(head)
    offset, part = start + before, head[before - 4 : before]
    there = max(0, size - offset)
    stated = struct.unpack(f"{order}L", part)[0] if len(part) == 4 else 0
    vr = head[4:6].decode("ascii") if before == 12 else "OW"
    undefined = stated == _UNDEFINED
    items = undefined and head[before : before + 4] == struct.pack(f"{order}HH", 0xFFFE, 0xE000)
    return PixelElement(keyword, offset, there if undefined else stated, there, vr, items)


def complete_pixels(dataset: Dataset, pixels: PixelElement | None) -> tuple[Caution, ...]:
    """Give the elements that are missing the value that the standard makes obvious.

    Args:
        dataset: the header; it is changed.
        pixels: the element that holds the pixels; nothing is completed where there is none.

    Returns:
        a caution for each element that got one, or had another value that cannot be.
    """
    numbers = Numbers(dataset)
    if pixels is None:
        return ()
    photometric = "\\".join(map(str, stored(dataset, "PhotometricInterpretation")))
    photometric = photometric.strip(" \0").upper()
    samples = numbers.whole("SamplesPerPixel")
    if not photometric and samples in (1, 3):
        photometric = "MONOCHROME2" if samples == 1 else "RGB"
        _assume(numbers, "PhotometricInterpretation", photometric)
    if not photometric:
        return tuple(numbers.cautions)  # `check_pixels` says so, where there are pixels
    dataset.PhotometricInterpretation = photometric
    usual = _SAMPLES.get(photometric, 3)
    if samples not in (1, 3, 4):
        _assume(numbers, "SamplesPerPixel", usual)
    _complete_bits_of(numbers, pixels)
    if not is_encapsulated(dataset.file_meta.TransferSyntaxUID):  # a stream tells it by itself
        _fit_samples(numbers, pixels, usual)
    if dataset.SamplesPerPixel > 1 and numbers.whole("PlanarConfiguration") not in (0, 1):
        dataset.PlanarConfiguration = 0  # meaningless where compressed; the usual one where not
    return tuple(numbers.cautions)


def _complete_bits_of(numbers: Numbers, pixels: PixelElement) -> None:
    """Complete depth and sign."""
    dataset = numbers.item
    if pixels.keyword in FLOATS:
        dataset.BitsAllocated = dataset.BitsStored = FLOATS[pixels.keyword]
    else:
        _complete_bits(numbers)
        sign = numbers.whole("PixelRepresentation")
        if sign is None:
            _assume(numbers, "PixelRepresentation", 0)
        elif sign not in (0, 1):
            _replace(numbers, "PixelRepresentation", 0)


def _fit_samples(numbers: Numbers, pixels: PixelElement, usual: int) -> None:
    """Hold the number of samples and the sub-sampling against the length of the pixel data."""
    dataset = numbers.item
    sides = numbers.whole("Rows"), numbers.whole("Columns")
    bits, samples = numbers.whole("BitsAllocated"), int(dataset.SamplesPerPixel)
    if not all(sides) or not bits:
        return  # `check_pixels` says so
    frames = max(1, numbers.whole("NumberOfFrames") or 1)
    plane = int(sides[0] or 0) * int(sides[1] or 0) * bits * frames / 8

    def fits(count: int) -> bool:
        return 0 <= pixels.length - count * plane <= 1

    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "YBR_FULL_422" and samples == usual and fits(3):
        _relabel(numbers, "YBR_FULL")  # as viewers leave it that decompress
    elif samples != usual and fits(samples):
        _relabel(numbers, "MONOCHROME2" if samples == 1 else "RGB")
    elif samples != usual:
        _replace(numbers, "SamplesPerPixel", usual)


def check_pixels(dataset: Dataset) -> None:
    """Refuse a description of pixels that lacks what cannot be assumed.

    Raises:
        InputError: an element is missing or cannot be; the message names it.
    """
    if not stored(dataset, "PhotometricInterpretation"):
        raise InputError(
            "PhotometricInterpretation and SamplesPerPixel are missing; export the file again",
            reason=Reason.CORRUPT,
        )
    numbers = Numbers(dataset)
    for keyword, low, high in (
        ("Rows", 1, _LARGEST_SIDE),
        ("Columns", 1, _LARGEST_SIDE),
        ("BitsAllocated", 1, _DEEPEST),
    ):
        value = numbers.whole(keyword)
        if value is None or not low <= value <= high:
            what = "missing" if value is None else str(value)
            raise InputError(f"{keyword} is {what}; export the file again", reason=Reason.CORRUPT)


def _complete_bits(numbers: Numbers) -> None:
    """Give Bits Allocated, Bits Stored and High Bit values that fit one another."""
    dataset = numbers.item
    allocated, kept = numbers.whole("BitsAllocated"), numbers.whole("BitsStored")
    if not allocated and kept:
        allocated = 8 * -(-kept // 8) if kept > 1 else 1
        _assume(numbers, "BitsAllocated", allocated)
    if not allocated:
        return  # `check_pixels` says so
    if kept is None or kept == 0:
        _assume(numbers, "BitsStored", allocated)
    elif not 0 < kept <= allocated:
        _replace(numbers, "BitsStored", allocated)
    kept, high = int(dataset.BitsStored), numbers.whole("HighBit")
    if high is None:
        _assume(numbers, "HighBit", kept - 1)
    elif not kept - 1 <= high < allocated:
        _replace(numbers, "HighBit", kept - 1)


def _relabel(numbers: Numbers, photometric: str) -> None:
    former = str(numbers.item.PhotometricInterpretation)
    numbers.item.PhotometricInterpretation = photometric
    text = f"labelled {former}, but the length of the pixel data is that of {photometric}"
    numbers.cautions.append(Caution("photometric_corrected", text))


def _assume(numbers: Numbers, keyword: str, value: object) -> None:
    setattr(numbers.item, keyword, value)
    text = f"{keyword} is missing; taken as {value}"
    numbers.cautions.append(Caution("value_assumed", text))


def _replace(numbers: Numbers, keyword: str, value: object) -> None:
    former = numbers.item.get(keyword)
    setattr(numbers.item, keyword, value)
    text = f"{keyword} is {former}, which cannot be; taken as {value}"
    numbers.cautions.append(Caution("value_ignored", text))
