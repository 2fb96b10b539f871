"""Descriptions of the status codes of store operations.

From PS3.18 tables I.2-1 and I.2-2 (STOW-RS), PS3.4 table B.2-1 (C-STORE) and PS3.7 annex C.
"""

from __future__ import annotations

_FAILURES = {
    0x0105: "no such attribute",
    0x0106: "invalid attribute value",
    0x0110: "processing failure",
    0x0111: "duplicate SOP instance UID",
    0x0112: "no such instance",
    0x0115: "invalid argument value",
    0x0117: "invalid instance",
    0x0118: "no such SOP class",
    0x0119: "SOP class and instance conflict",
    0x0120: "missing attribute",
    0x0121: "missing attribute value",
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0x0210: "duplicate invocation",
    0x0211: "unrecognised operation",
    0x0212: "mistyped argument",
    0x0213: "resource limitation",
    0xC122: "transfer syntax not supported",
}
_WARNINGS = {
    0x0001: "requested optional attributes are not supported",
    0x0107: "attribute list error",
    0x0116: "attribute value out of range",
    0xB000: "elements were changed",
    0xB006: "elements were discarded",
    0xB007: "the data set does not match its SOP class",
}
_RANGES = {
    0xA700: "out of resources",
    0xA900: "the data set does not match its SOP class",
}
_WARNING_RANGE = range(0xB000, 0xC000)
_CANNOT_UNDERSTAND = range(0xC000, 0xD000)


def describe_failure(code: int | None) -> str:
    """Describe a failure reason or status, such as `0x0122 (SOP class not supported)`."""
    if code is None:
        return "no reason given"
    words = _FAILURES.get(code) or _RANGES.get(code & 0xFF00)
    if words is None and code in _CANNOT_UNDERSTAND:
        words = "cannot understand"
    return f"0x{code:04X}" + (f" ({words})" if words else "")


def describe_warning(code: int) -> str:
    """Describe a warning reason or status."""
    words = _WARNINGS.get(code)
    return f"0x{code:04X}" + (f" ({words})" if words else "")


def is_warning(code: int) -> bool:
    """Whether a C-STORE status means that the object was stored with a warning."""
    return code in _WARNINGS or code in _WARNING_RANGE
