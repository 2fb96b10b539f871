"""Lenient reading of numbers in headers: decimal commas, text, NaN, wrong number of values.

The caller decides whether an unusable value matters: if not, it is ignored with a caution
(`Numbers.optional`); if so, an error quotes it (`Numbers.required`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement

from sam2unet_core.errors import InputError, Reason
from sam2unet_core.types import Caution

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
