"""Values of careless headers: numbers read leniently, attributes of the pixels made complete.

Numbers may have decimal commas, be text or NaN, or too many. The caller decides whether an unusable
one matters: if not, it is ignored with a caution (`Numbers.optional`); if so, an error quotes it
(`Numbers.required`). PS3.3 C.7.6.3 has the attributes of the pixels.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement

from sam2unet_core.dicom.codecs import value_offset
from sam2unet_core.dicom.files import is_encapsulated
from sam2unet_core.errors import InputError, Reason
from sam2unet_core.types import Caution

FLOATS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}
"""Pixel elements with floating-point values, and their bits."""
_TAGS = {
    (0x7FE0, 0x0008): "FloatPixelData",
    (0x7FE0, 0x0009): "DoubleFloatPixelData",
    (0x7FE0, 0x0010): "PixelData",
}
_SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1}
_MAX_BITS = 64
_MAX_SIDE = 65535
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class PixelElement:
    """The element that holds the pixels.

    Attributes:
        keyword: `PixelData`, `FloatPixelData` or `DoubleFloatPixelData`.
        offset: start of its value in the file.
        length: stated length of its value in bytes; the rest of the file if undefined.
        available: bytes from `offset` to the end of the file.
        vr: its value representation; `OW` if the file states none.
        encapsulated: whether its value is a sequence of items, as for compressed frames.
    """

    keyword: str
    offset: int
    length: int
    available: int
    vr: str = "OW"
    encapsulated: bool = False


def pixel_element(dataset: Dataset, stream: BinaryIO) -> PixelElement | None:
    """Return the pixel element at the position of a stream, which does not change, or None.

    In a deflated file the element lies in the deflated data, so its offset is unknown.
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
    header_length = value_offset(head)
    offset, part = start + header_length, head[header_length - 4 : header_length]
    available = max(0, size - offset)
    stated = struct.unpack(f"{order}L", part)[0] if len(part) == 4 else 0
    vr = head[4:6].decode("ascii") if header_length == 12 else "OW"
    undefined = stated == _UNDEFINED
    item_tag = struct.pack(f"{order}HH", 0xFFFE, 0xE000)
    encapsulated = undefined and head[header_length : header_length + 4] == item_tag
    length = available if undefined else stated
    return PixelElement(keyword, offset, length, available, vr, encapsulated)


def complete_pixels(dataset: Dataset, pixels: PixelElement | None) -> tuple[Caution, ...]:
    """Set missing and invalid elements of a header to the value that follows from the others.

    Returns a caution for each element that was set; without a pixel element nothing is changed.
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
        return tuple(numbers.cautions)  # `check_pixels` reports it
    dataset.PhotometricInterpretation = photometric
    usual = _SAMPLES.get(photometric, 3)
    if samples not in (1, 3, 4):
        _assume(numbers, "SamplesPerPixel", usual)
    _complete_depth(numbers, pixels)
    if not is_encapsulated(dataset.file_meta.TransferSyntaxUID):  # a compressed stream states it
        _fit_samples(numbers, pixels, usual)
    if dataset.SamplesPerPixel > 1 and numbers.whole("PlanarConfiguration") not in (0, 1):
        dataset.PlanarConfiguration = 0  # meaningless if compressed; else the usual value
    return tuple(numbers.cautions)


def _complete_depth(numbers: Numbers, pixels: PixelElement) -> None:
    """Complete bit depth and sign."""
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
    """Correct the number of samples and the sub-sampling by the length of the pixel data."""
    dataset = numbers.item
    sides = numbers.whole("Rows"), numbers.whole("Columns")
    bits, samples = numbers.whole("BitsAllocated"), int(dataset.SamplesPerPixel)
    if not all(sides) or not bits:
        return  # `check_pixels` reports it
    frames = max(1, numbers.whole("NumberOfFrames") or 1)
    plane = int(sides[0] or 0) * int(sides[1] or 0) * bits * frames / 8

    def fits(count: int) -> bool:
        return 0 <= pixels.length - count * plane <= 1

    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "YBR_FULL_422" and samples == usual and fits(3):
        _relabel(numbers, "YBR_FULL")  # some viewers decompress without changing the label
    elif samples != usual and fits(samples):
        _relabel(numbers, "MONOCHROME2" if samples == 1 else "RGB")
    elif samples != usual:
        _replace(numbers, "SamplesPerPixel", usual)


def check_pixels(dataset: Dataset) -> None:
    """Raise InputError if an element that cannot be assumed is missing or invalid."""
    if not stored(dataset, "PhotometricInterpretation"):
        raise InputError(
            "PhotometricInterpretation and SamplesPerPixel are missing; export the file again",
            reason=Reason.CORRUPT,
        )
    numbers = Numbers(dataset)
    for keyword, low, high in (
        ("Rows", 1, _MAX_SIDE),
        ("Columns", 1, _MAX_SIDE),
        ("BitsAllocated", 1, _MAX_BITS),
    ):
        value = numbers.whole(keyword)
        if value is None or not low <= value <= high:
            what = "missing" if value is None else str(value)
            raise InputError(f"{keyword} is {what}; export the file again", reason=Reason.CORRUPT)


def _complete_bits(numbers: Numbers) -> None:
    """Make Bits Allocated, Bits Stored and High Bit consistent."""
    dataset = numbers.item
    allocated, kept = numbers.whole("BitsAllocated"), numbers.whole("BitsStored")
    if not allocated and kept:
        allocated = 8 * -(-kept // 8) if kept > 1 else 1
        _assume(numbers, "BitsAllocated", allocated)
    if not allocated:
        return  # `check_pixels` reports it
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
    previous = str(numbers.item.PhotometricInterpretation)
    numbers.item.PhotometricInterpretation = photometric
    text = f"labelled {previous}, but the length of the pixel data is that of {photometric}"
    numbers.cautions.append(Caution("photometric_corrected", text))


def _assume(numbers: Numbers, keyword: str, value: object) -> None:
    setattr(numbers.item, keyword, value)
    text = f"{keyword} is missing; {value} was assumed"
    numbers.cautions.append(Caution("value_assumed", text))


def _replace(numbers: Numbers, keyword: str, value: object) -> None:
    previous = numbers.item.get(keyword)
    setattr(numbers.item, keyword, value)
    text = f"{keyword} is {previous}, which is invalid; {value} was assumed"
    numbers.cautions.append(Caution("value_ignored", text))


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_PLAIN = re.compile(r"[0-9+\-.,e]{0,16}|[+-]?(nan|inf|infinity)", re.IGNORECASE)
"""Values that may be quoted in messages; other text may name a patient."""
_MAX_QUOTED = 6

Values = tuple[float, ...]


@dataclass
class Numbers:
    """Reads numbers of a data set or item, and collects cautions about them.

    Attributes:
        item: the data set.
        cautions: what was corrected or ignored, in the order of reading.
    """

    item: Dataset
    cautions: list[Caution] = field(default_factory=list)

    def optional(self, keyword: str, *, count: int | None = None) -> Values | None:
        """Return an element's values, or None if it is missing, empty or unusable.

        Decimal commas are corrected with a caution; non-finite values and a number of values other
        than `count` are ignored with a caution.
        """
        texts = stored(self.item, keyword)
        if not texts:
            return None
        values, how = _parsed(texts, count)
        if how == "unusable":
            self.ignore(keyword)
            return None
        if how == "comma":
            self._note(
                "value_corrected", f"{keyword} is {quoted(texts)}; read with a decimal point"
            )
        return values

    def each(self, keyword: str) -> list[float | None]:
        """Return an element's values, None for unusable ones; see `optional`."""
        texts = stored(self.item, keyword)
        found: list[float | None] = []
        for text in texts:
            values, how = _parsed((text,), 1)
            found.append(values[0] if values else None)
            if how == "unusable":
                self.ignore(keyword)
            elif how == "comma":
                message = f"{keyword} is {quoted(texts)}; read with a decimal point"
                self._note("value_corrected", message)
        return found

    def one(self, keyword: str) -> float | None:
        """Return an element's single value; see `optional`."""
        values = self.optional(keyword, count=1)
        return None if values is None else values[0]

    def positive(self, keyword: str) -> float | None:
        """Return an element's single value if it is above 0; see `optional`."""
        value = self.one(keyword)
        if value is not None and value < 0:
            self.ignore(keyword)
        return value if value is not None and value > 0 else None

    def whole(self, keyword: str) -> int | None:
        """Return an element's single value if it is an integer; see `optional`."""
        value = self.one(keyword)
        if value is None or not value.is_integer():
            if value is not None:
                self.ignore(keyword)
            return None
        return int(value)

    def required(self, keyword: str, *, absent: float) -> float:
        """Return an element's single value, or `absent`; raise InputError if unusable."""
        texts = stored(self.item, keyword)
        if not texts:
            return absent
        values, how = _parsed(texts, 1)
        if how != "exact":
            raise unusable(keyword, texts)
        return values[0]

    def ignore(self, keyword: str) -> None:
        """Add a caution that an element was ignored."""
        found = quoted(stored(self.item, keyword))
        self._note("value_ignored", f"{keyword} is {found}; it was ignored")

    def _note(self, code: str, message: str) -> None:
        caution = Caution(code, message)
        if caution not in self.cautions:
            self.cautions.append(caution)


def stored(item: Dataset, keyword: str) -> tuple[object, ...]:
    """Return the unconverted values of an element; empty if it has none."""
    tag = tag_for_keyword(keyword)
    found = None if tag is None or tag not in item else item.get_item(tag)
    value: Any = None
    if isinstance(found, RawDataElement):
        value = found.value
        if isinstance(value, bytes) and found.VR not in (None, "DS", "IS", "UN", "LO", "SH"):
            value = _binary(item, keyword)
        elif isinstance(value, bytes):
            value = _split(value, item, keyword)
    elif isinstance(found, DataElement):
        value = found.value
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return tuple(value.split("\\"))
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values if any(str(each).strip() for each in values) else ()


def drop_unreadable(dataset: Dataset) -> None:
    """Convert every value of a data set and its items, and remove those that cannot be."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
            items = element.value if element.VR == "SQ" else ()
        except Exception:  # not a valid value
            del dataset[tag]
            continue
        for item in items or ():
            drop_unreadable(item)


def unusable(keyword: str, texts: Sequence[object]) -> InputError:
    """Return the error for a required element that is unusable."""
    return InputError(
        f"{keyword} is {quoted(texts)}; correct that element, or export the file again",
        reason=Reason.CORRUPT,
    )


def quoted(texts: Sequence[object]) -> str:
    """Return the values of an element for a message; of text only its length."""
    parts = [str(each).strip() for each in texts]
    text = "\\".join(parts)
    if len(parts) <= _MAX_QUOTED and all(_PLAIN.fullmatch(part) for part in parts):
        return f"'{text}'"
    return f"text of {len(text)} characters, not a number"


def _binary(item: Dataset, keyword: str) -> object:
    try:
        return item[keyword].value
    except Exception:  # not valid for its VR
        return "unreadable"


def _split(value: bytes, item: Dataset, keyword: str) -> tuple[object, ...]:
    """Return the parts of a text value, or binary numbers of an implicit VR file."""
    from pydicom.datadict import dictionary_VR  # noqa: PLC0415 - only for such files

    if dictionary_VR(keyword) not in ("DS", "IS"):
        return tuple(item[keyword]) if item[keyword].VM > 1 else (item[keyword].value,)
    text = value.decode("latin-1").strip(" \0")
    return tuple(part.strip(" \0") for part in text.split("\\")) if text else ()


def _parsed(texts: Sequence[object], count: int | None) -> tuple[Values, str]:
    """Return numbers and how they were read: `exact`, `comma` or `unusable`."""
    values, how = [], "exact"
    for each in texts:
        text = str(each).strip()
        if _COMMA.fullmatch(text):
            text, how = text.replace(",", "."), "comma"
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not math.isfinite(value):
            return (), "unusable"
        values.append(value)
    if count is not None and len(values) != count:
        return (), "unusable"
    return tuple(values), how
