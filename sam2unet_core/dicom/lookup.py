"""Look-up tables of DICOM: modality, VOI and palette (PS3.3 C.11.1, C.11.2, C.7.6.3.1.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels import apply_color_lut

Numbers = NDArray[Any]


@dataclass(frozen=True)
class Table:
    """A table and how it is entered.

    Attributes:
        entries: `(n,)` unsigned.
        first: the value that the first entry stands for; lower values take it too, and values
            beyond the last entry take the last.
        bits: depth of the entries; their full scale is `2**bits - 1`.
    """

    entries: NDArray[np.uint16]
    first: int
    bits: int

    def __call__(self, values: Numbers) -> NDArray[np.uint16]:
        """Return the entries for integer `values` of any shape."""
        index = np.clip(values.astype(np.int64) - self.first, 0, len(self.entries) - 1)
        return self.entries[index]


def grey_table(item: Dataset, *, signed: bool, little_endian: bool) -> Table:
    """Return the table of an item of a Modality LUT or VOI LUT Sequence.

    Args:
        item: the item.
        signed: whether the values that enter are signed.
        little_endian: byte order of the file.
    """
    count, first, bits = (int(v) for v in item.LUTDescriptor)
    entries = _entries(item.LUTData, count or 2**16, little_endian=little_endian)
    return Table(entries, _first(first, signed=signed), bits)


def palette(dataset: Dataset, *, signed: bool, little_endian: bool) -> tuple[Table, Table, Table]:
    """Return the red, green and blue tables of a PALETTE COLOR picture.

    Entries that claim 16 bits but stay below 256 throughout are of 8 bits, as some writers mean.
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
    red, green, blue = _true_depth(tables)
    return red, green, blue


def _segmented(dataset: Dataset, *, count: int, first: int) -> tuple[Table, Table, Table]:
    values = np.arange(first, first + count).astype(np.int32)
    expanded = apply_color_lut(values, dataset)
    bits = 8 * expanded.dtype.itemsize
    tables = [Table(expanded[:, i].astype(np.uint16), first, bits) for i in range(3)]
    red, green, blue = _true_depth(tables)
    return red, green, blue


def _true_depth(tables: list[Table]) -> list[Table]:
    highest = max(int(t.entries.max()) for t in tables)
    bits = 8 if highest < 256 else 16
    return [Table(t.entries, t.first, bits) for t in tables]


def _first(first: int, *, signed: bool) -> int:
    """Undo the reading of a signed first value as an unsigned one, and the reverse."""
    if signed and first >= 2**15:
        return first - 2**16
    return first + 2**16 if first < 0 and not signed else first


def _entries(data: Any, count: int, *, little_endian: bool) -> NDArray[np.uint16]:
    """Return the entries, stored as numbers or as bytes, one or two bytes each."""
    if not isinstance(data, bytes):
        numbers = np.atleast_1d(np.asarray(data, np.int64))
        if len(numbers) < count:  # two entries in each word
            numbers = numbers.astype(np.uint16).view(np.uint8)
        return (numbers[:count] & 0xFFFF).astype(np.uint16)
    if len(data) >= 2 * count:
        return np.frombuffer(data, "<u2" if little_endian else ">u2")[:count].astype(np.uint16)
    entries = np.frombuffer(data, np.uint8)
    if not little_endian:
        entries = entries[: len(entries) // 2 * 2].reshape(-1, 2)[:, ::-1].reshape(-1)
    return entries[:count].astype(np.uint16)
