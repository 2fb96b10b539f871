"""Grey pictures of DICOM: modality values, then the window or VOI LUT, then 8 bits (PS3.3 C.11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from sam2unet_core.dicom.lookup import Table, grey_table
from sam2unet_core.dicom.space import frame_item
from sam2unet_core.task import Window

Grey = NDArray[np.uint8]
Values = NDArray[Any]
SOFT_TISSUE = Window(center=40, width=400)
"""Shown for CT where neither the task nor the file states a window, in Hounsfield units."""
NO_WINDOW = "no window in the file: every frame is shown over its own range of values"
_KINDS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True)
class GreyWindow:
    """A window and the function that maps it to full scale (PS3.3 C.11.2.1.2, C.11.2.1.3)."""

    center: float
    width: float
    kind: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"] = "LINEAR"

    def __call__(self, values: Values) -> Grey:
        """Return `values` of any shape as uint8, 0 at and below the window, 255 above."""
        if values.dtype.kind in "iu" and values.dtype.itemsize <= 2 and values.size > 2**16:
            return self._looked_up(values)
        return self._computed(values)

    def _looked_up(self, values: Values) -> Grey:
        """Compute each value that the type can hold once."""
        unsigned = np.dtype(f"u{values.dtype.itemsize}")
        every = np.arange(256**values.dtype.itemsize, dtype=unsigned).view(
            values.dtype.newbyteorder("=")
        )
        table = self._computed(every)
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
    """Shows the stored values of one instance.

    Args:
        dataset: the header.
        window: the task's; used where the values have its unit, which is CT's.
    """

    def __init__(self, dataset: Dataset, window: Window | None) -> None:
        self._dataset = dataset
        self._signed = dataset.get("PixelRepresentation") == 1
        self._bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
        syntax = dataset.file_meta.TransferSyntaxUID
        self._little = syntax != "1.2.840.10008.1.2.2"
        self._inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
        self._padding = _padding(dataset, signed=self._signed)
        self._window = window if dataset.get("Modality") == "CT" else None

    def __call__(self, stored: Values, index: int) -> Grey:
        """Return a frame `(H, W)` as uint8, white where the picture is to be white."""
        values = self._modality(stored, index)
        low, high = self._padding
        padded = (stored >= low) & (stored <= high) if low is not None else None
        grey = self._shown(values, index=index, padded=padded)
        if self._inverted:
            grey = 255 - grey
        if padded is not None:
            grey[padded] = 0
        return grey

    def _modality(self, stored: Values, index: int) -> Values:
        item = frame_item(self._dataset, index, "PixelValueTransformationSequence")
        item = self._dataset if item is None else item
        tables = item.get("ModalityLUTSequence")
        if tables:
            table = grey_table(tables[0], signed=self._signed, little_endian=self._little)
            return table(stored).astype(np.uint8) if table.bits <= 8 else table(stored)
        slope, intercept = (
            _number(item, "RescaleSlope", 1.0),
            _number(item, "RescaleIntercept", 0.0),
        )
        if (slope, intercept) == (1.0, 0.0):
            return stored
        return stored.astype(np.float64) * slope + intercept

    def _shown(self, values: Values, *, index: int, padded: NDArray[np.bool_] | None) -> Grey:
        if self._window is not None:
            return GreyWindow(self._window.center, self._window.width)(values)
        item = frame_item(self._dataset, index, "FrameVOILUTSequence")
        item = self._dataset if item is None else item
        tables = item.get("VOILUTSequence")
        if tables:
            return _through(self._table(tables[0], values), values)
        window = stated_window(item)
        if window is not None:
            return window(values)
        return self._shown_unasked(values, padded)

    def _shown_unasked(self, values: Values, padded: NDArray[np.bool_] | None) -> Grey:
        """Show values that neither the file nor the task has a window for."""
        if self._bits <= 8 and values.dtype == np.uint8:
            if self._bits == 8:
                return values
            return GreyWindow((2**self._bits - 1) / 2, 2**self._bits - 1, "LINEAR_EXACT")(values)
        if self._dataset.get("Modality") == "CT":
            return GreyWindow(SOFT_TISSUE.center, SOFT_TISSUE.width)(values)
        return _over_its_range(values, padded)

    def _table(self, item: Dataset, values: Values) -> Table:
        signed = bool(self._signed or (values.size and values.min() < 0))
        return grey_table(item, signed=signed, little_endian=self._little)


def stated_window(item: Dataset) -> GreyWindow | None:
    """Return the first window of a data set or item that can be used; None where there is none."""
    centers, widths = _listed(item.get("WindowCenter")), _listed(item.get("WindowWidth"))
    kind = str(item.get("VOILUTFunction") or "LINEAR").upper()
    kind = kind if kind in _KINDS else "LINEAR"
    for center, width in zip(centers, widths, strict=False):
        if width >= 1 or (width > 0 and kind != "LINEAR"):
            return GreyWindow(center, width, kind)  # type: ignore[arg-type]
    return None


def shows_own_range(dataset: Dataset) -> bool:
    """Whether frames are shown over their own range, for want of a window in the file."""
    groups = [frame_item(dataset, 0, "FrameVOILUTSequence"), dataset]
    stated = any(g is not None and (g.get("VOILUTSequence") or stated_window(g)) for g in groups)
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    grey = dataset.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2")
    return grey and not stated and bits > 8 and dataset.get("Modality") != "CT"


def _through(table: Table, values: Values) -> Grey:
    shown = table(np.rint(values) if values.dtype.kind == "f" else values).astype(np.float64)
    grey: Grey = np.clip(np.rint(shown * (255.0 / (2**table.bits - 1))), 0, 255).astype(np.uint8)
    return grey


def _over_its_range(values: Values, padded: NDArray[np.bool_] | None) -> Grey:
    seen = values if padded is None or padded.all() else values[~padded]
    low, high = float(seen.min()), float(seen.max())
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    return GreyWindow((low + high) / 2, high - low, "LINEAR_EXACT")(values)


def _padding(dataset: Dataset, *, signed: bool) -> tuple[int, int] | tuple[None, None]:
    """Return the range of stored values that are no picture, in the pixels' own sign."""
    value = dataset.get("PixelPaddingValue")
    if value is None or str(value).strip() == "":
        return (None, None)
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = [_as_stored(value, dataset, signed=signed)]
    ends.append(ends[0] if limit is None else _as_stored(limit, dataset, signed=signed))
    return (min(ends), max(ends))


def _as_stored(value: Any, dataset: Dataset, *, signed: bool) -> int:
    if isinstance(value, bytes):
        value = int.from_bytes(value[:2], "little")
    number: int = int(value)
    span: int = 2 ** int(dataset.BitsAllocated)
    if signed and number >= span // 2:
        return number - span
    return number + span if number < 0 and not signed else number


def _number(item: Dataset, keyword: str, absent: float) -> float:
    value = item.get(keyword)
    return absent if value is None or str(value).strip() == "" else float(value)


def _listed(value: Any) -> list[float]:
    if value is None or str(value).strip() == "":
        return []
    return [float(v) for v in value] if hasattr(value, "__iter__") else [float(value)]
