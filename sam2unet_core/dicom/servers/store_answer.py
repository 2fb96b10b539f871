"""Answers to store operations: the response of STOW-RS in JSON or XML, and what status codes mean.

From PS3.18 annex I (STOW-RS), PS3.4 table B.2-1 (C-STORE) and PS3.7 annex C.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

JSON_KINDS = frozenset({"application/dicom+json", "application/json"})
XML_KINDS = frozenset({"application/dicom+xml", "application/xml", "text/xml"})
_STORED, _FAILED, _OTHER_FAILURES = "00081199", "00081198", "0008119A"
_INSTANCE, _WARNING, _FAILURE = "00081155", "00081196", "00081197"

Item = Mapping[str, str]
"""First values of the elements of a sequence item, by tag."""


@dataclass(frozen=True)
class StoreAnswer:
    """Instances in a store response.

    Attributes:
        stored: warning reason or None by SOP instance UID.
        failed: failure reason or None by SOP instance UID.
        others: failure reasons of objects that the server could not identify.
    """

    stored: Mapping[str, int | None] = field(default_factory=dict)
    failed: Mapping[str, int | None] = field(default_factory=dict)
    others: tuple[int | None, ...] = ()


def read_store_answer(kind: str, body: bytes) -> StoreAnswer:
    """Parse the body of a store response, which may be empty.

    `kind` is its content type, without parameters, in lower case.

    Raises:
        ValueError: not such a response.
    """
    if not body.strip():
        return StoreAnswer()
    if kind in JSON_KINDS:
        sequences = _parse_json(body)
    elif kind in XML_KINDS:
        sequences = _parse_xml(body)
    else:
        raise ValueError("neither DICOM JSON nor XML")
    stored, failed = sequences[_STORED], sequences[_FAILED]
    others = [item for item in failed if not _uid(item)] + sequences[_OTHER_FAILURES]
    return StoreAnswer(
        {_uid(item): _code(item, _WARNING) for item in stored if _uid(item)},
        {_uid(item): _code(item, _FAILURE) for item in failed if _uid(item)},
        tuple(_code(item, _FAILURE) for item in others),
    )


def _uid(item: Item) -> str:
    return item.get(_INSTANCE, "").strip(" \0")


def _code(item: Item, tag: str) -> int | None:
    """Return a reason code, or None if missing or invalid."""
    text = item.get(tag, "").strip()
    return int(text) if text.isascii() and text.isdecimal() and int(text) <= 0xFFFF else None


def _parse_json(body: bytes) -> dict[str, list[Item]]:
    content = json.loads(body)
    if isinstance(content, list) and len(content) == 1:  # some servers wrap it in a list
        content = content[0]
    if not isinstance(content, dict):
        raise ValueError("JSON, but not a data set")
    found: dict[str, list[Item]] = {}
    for tag in (_STORED, _FAILED, _OTHER_FAILURES):
        items = _values(content.get(tag))
        found[tag] = [_json_item(item) for item in items if isinstance(item, dict)]
    return found


def _json_item(item: dict[str, Any]) -> Item:
    values = {tag: _values(item.get(tag)) for tag in (_INSTANCE, _WARNING, _FAILURE)}
    return {tag: str(found[0]) for tag, found in values.items() if found}


def _values(element: object) -> list[Any]:
    """Return the values of an element in DICOM JSON."""
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _parse_xml(body: bytes) -> dict[str, list[Item]]:
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise ValueError("XML with a document type, which the native DICOM model does not have")
    try:
        root = ET.fromstring(body)
    except ET.ParseError as error:
        raise ValueError("not XML") from error
    if root.tag.rpartition("}")[2] != "NativeDicomModel":
        raise ValueError("XML, but not a data set")
    found: dict[str, list[Item]] = {tag: [] for tag in (_STORED, _FAILED, _OTHER_FAILURES)}
    for element in root:
        tag = element.get("tag", "").upper()
        if tag in found:
            found[tag] = [_xml_item(item) for item in element if _is(item, "Item")]
    return found


def _xml_item(item: ET.Element) -> Item:
    values = {}
    for element in item:
        texts = [each.text or "" for each in element if _is(each, "Value")]
        if texts:
            values[element.get("tag", "").upper()] = texts[0]
    return values


def _is(element: ET.Element, name: str) -> bool:
    return element.tag.rpartition("}")[2] == name


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
