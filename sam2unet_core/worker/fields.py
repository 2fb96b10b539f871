"""Parses requests field by field and checks each value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sam2unet_core.protocol import MAX_ID, OPERATIONS, PROTOCOL_VERSION, ProtocolError
from sam2unet_core.task import Task, load_preset
from sam2unet_core.types import SourceProperties

MAX_TEXT = 4096
MAX_FRAMES = 1_000_000
MAX_SMOOTHING_PX = 100.0
MAX_AREA_PX = 2**31
PLANES = ("axial", "coronal", "sagittal")
_HEAD = ("v", "id", "op")


class Fields:
    """The fields of a request, or of an object in one.

    Args:
        values: the object from the request.
        name: the object's name in errors.
    """

    def __init__(self, values: object, name: str = "request") -> None:
        if not isinstance(values, Mapping):
            raise ProtocolError("bad_request", f"{name}: expected an object")
        self._left = dict(values)
        self._name = name

    def text(self, name: str, default: str | None = None) -> str | None:
        """Take a text; `default` if it is null or missing."""
        value = self._left.pop(name, None)
        if value is None:
            return default
        if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or "\0" in value:
            raise self._wrong(name, f"a text of 1 to {MAX_TEXT} characters")
        return value

    def needed_text(self, name: str) -> str:
        """Take a required text."""
        value = self.text(name)
        if value is None:
            raise self._wrong(name, "a text")
        return value

    def choice(self, name: str, options: tuple[str, ...], default: str | None) -> str | None:
        """Take one of `options`."""
        value = self.text(name, default)
        if value is not None and value not in options:
            raise self._wrong(name, f"one of {', '.join(options)}")
        return value

    def integer(self, name: str, default: int | None, *, low: int, high: int) -> int | None:
        """Take a whole number from `low` to `high`."""
        value = self._left.pop(name, None)
        if value is None:
            return default
        if type(value) is not int or not low <= value <= high:
            raise self._wrong(name, f"a whole number from {low} to {high}")
        return value

    def number(self, name: str, default: float | None, *, low: float, high: float) -> float | None:
        """Take a number from `low` to `high`."""
        value = self._left.pop(name, None)
        if value is None:
            return default
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high or not math.isfinite(value):
            raise self._wrong(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Take true or false."""
        value = self._left.pop(name, None)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def frames(self, name: str = "frames") -> list[int] | None:
        """Take a list of distinct, ascending frame numbers from 0; None, for all, if it is null."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        good = isinstance(value, list) and 0 < len(value) <= MAX_FRAMES
        good = good and all(type(v) is int and 0 <= v < MAX_FRAMES for v in value)
        if not good or any(b <= a for a, b in pairwise(value)):
            raise self._wrong(name, f"ascending numbers from 0, at most {MAX_FRAMES} of them")
        return list(value)

    def inner(self, name: str) -> Fields | None:
        """Take an object; None if it is null or missing."""
        value = self._left.pop(name, None)
        return None if value is None else Fields(value, name)

    def anything(self, name: str) -> object:
        """Take a value without checking it."""
        return self._left.pop(name, None)

    def end(self) -> None:
        """Raise a `ProtocolError` if fields are left, such as misspelt ones."""
        if self._left:
            names = ", ".join(sorted(str(name)[:40] for name in self._left)[:5])
            raise ProtocolError("bad_request", f"{self._name}: unknown fields: {names}")

    def _wrong(self, name: str, expected: str) -> ProtocolError:
        return ProtocolError("bad_request", f"{self._name}: {name}: expected {expected}")


@dataclass(frozen=True)
class LoadOptions:
    """Which model to load; None means the default.

    Attributes:
        task: name of a built-in task.
        bundle: a bundle folder.
        weights: a weights file.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        runtime: see `sam2unet_core.inference.runtimes`.
    """

    task: str | None = None
    bundle: str | None = None
    weights: str | None = None
    device: str = "auto"
    runtime: str = "auto"

    @classmethod
    def take(cls, fields: Fields) -> LoadOptions:
        """Parse the fields of `load`."""
        return cls(
            task=fields.text("task"),
            bundle=fields.text("bundle"),
            weights=fields.text("weights"),
            device=fields.text("device") or "auto",
            runtime=fields.text("runtime") or "auto",
        )


@dataclass(frozen=True)
class Adjustment:
    """How probabilities become masks; None means the task's value.

    Attributes:
        threshold: a pixel belongs to a class at or above it, 0 to 1.
        min_area_px: components smaller than this are dropped.
        keep_largest: whether to keep only the largest component of each class and frame.
        smoothing_px: standard deviation of a Gaussian filter on a frame's probabilities; 0 for
            none.
    """

    threshold: float | None = None
    min_area_px: int | None = None
    keep_largest: bool = False
    smoothing_px: float = 0.0

    @classmethod
    def take(cls, fields: Fields) -> Adjustment:
        """Parse the fields that `segment` and `rethreshold` share."""
        return cls(
            threshold=fields.number("threshold", None, low=0, high=1),
            min_area_px=fields.integer("min_area_px", None, low=0, high=MAX_AREA_PX),
            keep_largest=fields.flag("keep_largest"),
            smoothing_px=fields.number("smoothing_px", 0.0, low=0, high=MAX_SMOOTHING_PX) or 0.0,
        )


def take_task(named: object) -> Task:
    """Return the task that a request gives by name or as an object.

    Raises:
        ProtocolError: it is neither a name nor an object.
        TaskError: there is no task of that name, or the object is not a valid task.
    """
    if isinstance(named, str):
        return load_preset(named)
    if not isinstance(named, dict):
        raise ProtocolError("bad_request", "task: expected a name or the content of a task.json")
    return Task.from_dict(named)


def take_properties(fields: Fields) -> SourceProperties:
    """Parse the properties of a DICOM source, each of which may be null."""
    properties = SourceProperties(
        modality=fields.text("modality"),
        sop_class_uid=fields.text("sop_class_uid"),
        photometric=fields.text("photometric"),
    )
    fields.end()
    return properties


def request_id(message: Mapping[str, Any]) -> int | None:
    """Return the id of a request; None if it is missing or invalid."""
    value = message.get("id")
    return value if type(value) is int and 0 <= value <= MAX_ID else None


def check_head(message: Mapping[str, Any]) -> tuple[int, str, Fields]:
    """Return id, operation and remaining fields of a request.

    Raises:
        ProtocolError: `bad_request`.
    """
    identifier = request_id(message)
    if identifier is None:
        raise ProtocolError("bad_request", f"id: expected a whole number from 0 to {MAX_ID}")
    if message.get("v") != PROTOCOL_VERSION or isinstance(message["v"], bool):
        raise ProtocolError(
            "bad_request",
            f"v: this worker speaks version {PROTOCOL_VERSION} of the protocol",
            "install the versions of sam2unet and of the 3D Slicer extension that belong together",
        )
    operation = message.get("op")
    if operation not in OPERATIONS:
        raise ProtocolError("bad_request", f"op: expected one of {', '.join(OPERATIONS)}")
    rest = {key: value for key, value in message.items() if key not in _HEAD}
    return identifier, str(operation), Fields(rest, str(operation))
