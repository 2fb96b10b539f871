"""File names without patient names, and as valid UTF-8."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

_SURROGATES = re.compile(r"[\ud800-\udfff]")
"""Surrogates, by which Python represents bytes that are not UTF-8."""


def without_names(text: str, paths: Iterable[Path]) -> str:
    """Return a message without the names of these files and of their folders."""
    names: dict[str, str] = {}
    for path in paths:
        for one in (path, Path(os.path.realpath(path))):
            names |= {str(folder): "its folder" for folder in one.parents if folder.name}
            names |= {str(one): "the file", one.name: "the file"}
    for name in sorted((n for n in names if len(n) > 1), key=len, reverse=True):
        text = text.replace(name, names[name])
    return text


def in_utf8(name: str) -> str:
    """Return a file name in valid UTF-8: other bytes are percent-encoded, as in %E9."""
    return _SURROGATES.sub(lambda found: f"%{ord(found[0]) & 0xFF:02X}", name)
