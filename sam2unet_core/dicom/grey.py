"""Display of grey DICOM frames: modality LUT, then VOI LUT or window, to 8 bits (PS3.3 C.11).

Look-up tables of palette colour are here, too (PS3.3 C.7.6.3.1.5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels import apply_color_lut

from sam2unet_core.dicom.attributes import Numbers, unusable
from sam2unet_core.dicom.attributes import stored as stored_values
from sam2unet_core.dicom.header import frame_item
from sam2unet_core.errors import InputError, Reason
from sam2unet_core.task import Window
from sam2unet_core.types import Caution

Grey = NDArray[np.uint8]
Values = NDArray[Any]
Mask = NDArray[np.bool_]
SOFT_TISSUE = Window(center=40, width=400)
"""Default window for CT, in Hounsfield units."""
SOFT_TISSUE_SHOWN = "no usable window in the file: shown with a soft tissue window, -160 to 240 HU"
_PERCENTILES = (0.1, 99.9)
_MAX_STRETCH = 10
_VOI_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True)
class GreyWindow:
    """A window and the function that maps it to full scale (PS3.3 C.11.2.1.2, C.11.2.1.3)."""

    center: float
    width: float
    kind: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"] = "LINEAR"

    def __call__(self, values: Values) -> Grey:
        """Return `values` of any shape as uint8, 0 below the window, 255 above."""
        if values.dtype.kind in "iu" and values.dtype.itemsize <= 2 and values.size > 2**16:
            return self._looked_up(values)
        return self._computed(values)

    def _looked_up(self, values: Values) -> Grey:
        """Apply the window by a table of all values of the type."""
        unsigned = np.dtype(f"u{values.dtype.itemsize}")
        inputs = np.arange(256**values.dtype.itemsize, dtype=unsigned).view(
            values.dtype.newbyteorder("=")
        )
        table = self._computed(inputs)
        native = values.astype(values.dtype.newbyteorder("="), copy=False)
        grey: Grey = table[native.view(unsigned)]
        return grey

    def _computed(self, values: Values) -> Grey:
        wide = values.astype(np.float64)
        if self.kind == "SIGMOID":
            share = 1 / (1 + np.exp(np.clip(-4 * (wide - self.center) / self.width, -500, 500)))
        elif self.kind == "LINEAR_EXACT":
            share = (wide - self.center) / self.width + 0.5
        elif self.width <= 1:  # the standard's LINEAR: a step
            share = (wide > self.center - 0.5).astype(np.float64)
        else:
            share = (wide - (self.center - 0.5)) / (self.width - 1) + 0.5
        return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


class GreyChain:
    """Maps the stored values of one instance to greys.

    Args:
        dataset: the completed header.
        window: the task's; applied to CT only, whose values have its unit.

    Raises:
        InputError: an element that the pixels depend on is unusable.
    """

    def __init__(self, dataset: Dataset, window: Window | None) -> None:
        self._dataset = dataset
        self._signed = dataset.get("PixelRepresentation") == 1
        self._bits = int(dataset.BitsStored)
        syntax = dataset.file_meta.TransferSyntaxUID
        self._little = syntax != "1.2.840.10008.1.2.2"
        self._inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
        self._header = Numbers(dataset)
        self._padding = _padding(self._header, signed=self._signed)
        self._window = window if dataset.get("Modality") == "CT" else None

    def __call__(self, stored: Values, index: int) -> tuple[Grey, tuple[Caution, ...]]:
        """Return a frame `(H, W)` as uint8 greys, with what was guessed or ignored."""
        low, high = self._padding
        padded = (stored >= low) & (stored <= high) if low is not None else None
        cautions = list(self._header.cautions)
        voi = _Voi.of(self._item(index, "FrameVOILUTSequence"), cautions)
        values = self._modality(stored, index, cautions, matters=self._has_scale(voi))
        values, unusable = _finite(values, cautions)
        hidden = _union(padded, unusable)
        grey = self._shown(values, voi=voi, hidden=hidden, cautions=cautions)
        if self._inverted:
            grey = 255 - grey
        if hidden is not None:
            grey[hidden] = 0
        return grey, tuple(dict.fromkeys(cautions))

    def _item(self, index: int, keyword: str) -> Dataset:
        item: Dataset | None = frame_item(self._dataset, index, keyword)
        return self._dataset if item is None else item

    def _has_scale(self, voi: _Voi) -> bool:
        """Whether the greys depend on the unit of the values."""
        ct = self._dataset.get("Modality") == "CT"
        return ct or self._window is not None or voi.table is not None or voi.window is not None

    def _modality(
        self, stored: Values, index: int, cautions: list[Caution], *, matters: bool
    ) -> Values:
        item = self._item(index, "PixelValueTransformationSequence")
        tables = item.get("ModalityLUTSequence")
        if tables:
            table = self._table(tables[0], stored, name="ModalityLUTSequence")
            return table(stored).astype(np.uint8) if table.bits <= 8 else table(stored)
        numbers = Numbers(item)
        try:
            slope = numbers.required("RescaleSlope", absent=1.0)
            intercept = numbers.required("RescaleIntercept", absent=0.0)
            if slope == 0:
                raise unusable("RescaleSlope", stored_values(item, "RescaleSlope"))
        except InputError as error:
            if matters:
                raise
            cautions.append(
                Caution("value_ignored", f"{str(error).partition(';')[0]}; it was ignored")
            )
            return stored
        if self._dataset.get("Modality") == "CT":  # for which the standard requires both
            for keyword, assumed in (("RescaleSlope", 1), ("RescaleIntercept", 0)):
                if not stored_values(item, keyword):
                    text = f"{keyword} is missing; {assumed} was assumed"
                    cautions.append(Caution("value_assumed", text))
        if (slope, intercept) == (1.0, 0.0):
            return stored
        return stored.astype(np.float64) * slope + intercept

    def _shown(
        self, values: Values, *, voi: _Voi, hidden: Mask | None, cautions: list[Caution]
    ) -> Grey:
        if self._window is not None:
            return GreyWindow(self._window.center, self._window.width)(values)
        if voi.table is not None:
            try:
                return _apply_table(self._table(voi.table, values, name="VOILUTSequence"), values)
            except InputError as error:
                cautions.append(Caution("value_ignored", f"{error}; it was ignored"))
        if voi.window is not None:
            return voi.window(values)
        return self._shown_by_default(values, hidden, cautions)

    def _shown_by_default(
        self, values: Values, hidden: Mask | None, cautions: list[Caution]
    ) -> Grey:
        """Show values without a usable window in file or task."""
        if self._bits <= 8 and values.dtype == np.uint8:
            if self._bits == 8:
                return values.copy()
            return GreyWindow((2**self._bits - 1) / 2, 2**self._bits - 1, "LINEAR_EXACT")(values)
        if self._dataset.get("Modality") == "CT":
            cautions.append(Caution("window_guessed", SOFT_TISSUE_SHOWN))
            return GreyWindow(SOFT_TISSUE.center, SOFT_TISSUE.width)(values)
        seen = values if hidden is None or hidden.all() else values[~hidden]
        low, high, text = shown_range(seen)
        cautions.append(Caution("window_guessed", f"no usable window in the file: {text}"))
        if high <= low:
            return np.zeros(values.shape, np.uint8)
        return GreyWindow((low + high) / 2, high - low, "LINEAR_EXACT")(values)

    def _table(self, item: Dataset, values: Values, *, name: str) -> Table:
        signed = bool(self._signed or (values.size and values.min() < 0))
        try:
            return grey_table(item, signed=signed, little_endian=self._little)
        except Exception as error:  # a table breaks in many ways
            raise InputError(f"{name} cannot be read", reason=Reason.CORRUPT) from error


@dataclass(frozen=True)
class _Voi:
    """The usable VOI transformation of a data set or item."""

    table: Dataset | None
    window: GreyWindow | None

    @classmethod
    def of(cls, item: Dataset, cautions: list[Caution]) -> _Voi:
        tables = item.get("VOILUTSequence")
        window, found = stated_window(item)
        cautions.extend(found)
        return cls(tables[0] if tables else None, window)


def stated_window(item: Dataset) -> tuple[GreyWindow | None, tuple[Caution, ...]]:
    """Return the first usable window of a data set or item, and what was ignored."""
    numbers = Numbers(item)
    centers, widths = numbers.each("WindowCenter"), numbers.each("WindowWidth")
    kind = str(item.get("VOILUTFunction") or "LINEAR").upper()
    kind = kind if kind in _VOI_FUNCTIONS else "LINEAR"
    for center, width in zip(centers, widths, strict=False):
        if center is None or width is None:
            continue
        if width >= 1 or (width > 0 and kind != "LINEAR"):
            return GreyWindow(center, width, kind), tuple(numbers.cautions)  # type: ignore[arg-type]
        numbers.ignore("WindowWidth")
    return None, tuple(numbers.cautions)


def shown_range(values: Values) -> tuple[float, float, str]:
    """Return the lowest and highest of finite values to show by default, and a description.

    This is the range of the values; if outliers extend it to more than `_MAX_STRETCH` times the
    range between `_PERCENTILES`, it is the latter.
    """
    low, high = float(values.min()), float(values.max())
    first, last = _PERCENTILES
    inner_low = float(np.percentile(values, first, method="higher"))
    inner_high = float(np.percentile(values, last, method="lower"))
    if high - low <= _MAX_STRETCH * (inner_high - inner_low) or inner_high <= inner_low:
        return low, high, "each frame is shown over its own range of values"
    text = f"shown from the {first:g}th to the {last:g}th percentile, because of outliers"
    return inner_low, inner_high, text


def _finite(values: Values, cautions: list[Caution]) -> tuple[Values, Mask | None]:
    """Replace non-finite values by the lowest one, and return where they were.

    Raises:
        InputError: no value is finite.
    """
    if values.dtype.kind != "f":
        return values, None
    finite = np.isfinite(values)
    if finite.all():
        return values, None
    if not finite.any():
        raise InputError("no pixel of the frame is a finite number", reason=Reason.CORRUPT)
    share = 1 - float(finite.mean())
    text = f"{share:.2%} of the pixels are not finite; shown as the lowest value"
    cautions.append(Caution("not_finite", text))
    return np.where(finite, values, values[finite].min()), ~finite


def _union(first: Mask | None, second: Mask | None) -> Mask | None:
    if first is None or second is None:
        return second if first is None else first
    return first | second


def _apply_table(table: Table, values: Values) -> Grey:
    shown = table(np.rint(values) if values.dtype.kind == "f" else values).astype(np.float64)
    grey: Grey = np.clip(np.rint(shown * (255.0 / (2**table.bits - 1))), 0, 255).astype(np.uint8)
    return grey


def _padding(numbers: Numbers, *, signed: bool) -> tuple[int, int] | tuple[None, None]:
    """Return the range of padding values, with the sign of the pixels."""
    value = _padding_value(numbers, "PixelPaddingValue")
    if value is None:
        return (None, None)
    limit = _padding_value(numbers, "PixelPaddingRangeLimit")
    span = 2 ** int(numbers.item.BitsAllocated)
    ends = [
        _as_stored(end, span, signed=signed) for end in (value, value if limit is None else limit)
    ]
    return (min(ends), max(ends))


def _padding_value(numbers: Numbers, keyword: str) -> int | None:
    values = stored_values(numbers.item, keyword)
    if len(values) == 1 and isinstance(values[0], bytes):
        return int.from_bytes(values[0][:2], "little")
    return numbers.whole(keyword)


def _as_stored(number: int, span: int, *, signed: bool) -> int:
    if signed and number >= span // 2:
        return number - span
    return number + span if number < 0 and not signed else number


Entries = NDArray[Any]


@dataclass(frozen=True)
class Table:
    """A look-up table.

    Attributes:
        entries: `(n,)` unsigned.
        first: the input value of the first entry; other values are clipped to the table.
        bits: depth of the entries; their full scale is `2**bits - 1`.
    """

    entries: NDArray[np.uint16]
    first: int
    bits: int

    def __call__(self, values: Entries) -> NDArray[np.uint16]:
        """Return the entries for integer `values` of any shape."""
        index = np.clip(values.astype(np.int64) - self.first, 0, len(self.entries) - 1)
        return self.entries[index]


def grey_table(item: Dataset, *, signed: bool, little_endian: bool) -> Table:
    """Return the table of an item of a Modality LUT or VOI LUT Sequence.

    `signed` refers to the input values.
    """
    count, first, bits = (int(v) for v in item.LUTDescriptor)
    entries = _entries(item.LUTData, count or 2**16, little_endian=little_endian)
    return Table(entries, _first(first, signed=signed), bits)


def palette(dataset: Dataset, *, signed: bool, little_endian: bool) -> tuple[Table, Table, Table]:
    """Return the red, green and blue tables of a PALETTE COLOR picture.

    Entries that claim 16 bits but are all below 256 are read as 8 bits, as some writers store them.
    """
    tables = []
    for name in ("Red", "Green", "Blue"):
        count, first, bits = (int(v) for v in dataset[f"{name}PaletteColorLookupTableDescriptor"])
        first = _first(first, signed=signed)
        data = dataset.get(f"{name}PaletteColorLookupTableData")
        if data is None:
            return _segmented(dataset, count=count or 2**16, first=first)
        entries = _entries(data, count or 2**16, little_endian=little_endian)
        tables.append(Table(entries, first, bits))
    return _true_depth(*tables)


def _segmented(dataset: Dataset, *, count: int, first: int) -> tuple[Table, Table, Table]:
    values = np.arange(first, first + count).astype(np.int32)
    expanded = apply_color_lut(values, dataset)
    bits = 8 * expanded.dtype.itemsize
    tables = [Table(expanded[:, i].astype(np.uint16), first, bits) for i in range(3)]
    return _true_depth(*tables)


def _true_depth(red: Table, green: Table, blue: Table) -> tuple[Table, Table, Table]:
    bits = 8 if max(int(table.entries.max()) for table in (red, green, blue)) < 256 else 16
    return replace(red, bits=bits), replace(green, bits=bits), replace(blue, bits=bits)


def _first(first: int, *, signed: bool) -> int:
    """Correct the sign of a first value that was read with the wrong one."""
    if signed and first >= 2**15:
        return first - 2**16
    return first + 2**16 if first < 0 and not signed else first


def _entries(data: Any, count: int, *, little_endian: bool) -> NDArray[np.uint16]:
    """Return the entries, stored as numbers or as one or two bytes each."""
    if not isinstance(data, bytes):
        numbers = np.atleast_1d(np.asarray(data, np.int64))
        if len(numbers) < count:  # two entries per word
            numbers = numbers.astype(np.uint16).view(np.uint8)
        return (numbers[:count] & 0xFFFF).astype(np.uint16)
    if len(data) >= 2 * count:
        return np.frombuffer(data, "<u2" if little_endian else ">u2")[:count].astype(np.uint16)
    entries = np.frombuffer(data, np.uint8)
    if not little_endian:
        entries = entries[: len(entries) // 2 * 2].reshape(-1, 2)[:, ::-1].reshape(-1)
    return entries[:count].astype(np.uint16)
