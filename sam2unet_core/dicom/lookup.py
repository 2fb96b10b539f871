"""Look-up tables of DICOM: modality, VOI and palette (PS3.3 C.11.1, C.11.2, C.7.6.3.1.5)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels import apply_color_lut

Numbers = NDArray[Any]


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

    def __call__(self, values: Numbers) -> NDArray[np.uint16]:
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
