"""Names of files: they may name patients, and not every name is text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

_NO_TEXT = re.compile(r"[\ud800-\udfff]")
"""What Python makes of bytes that are not UTF-8."""


def without_names(text: str, paths: Iterable[Path]) -> str:
    """Return a message without the names of these files and of the folders they lie in."""
    names: dict[str, str] = {}
    for path in paths:
        for one in (path, Path(os.path.realpath(path))):
            names |= {str(folder): "its folder" for folder in one.parents if folder.name}
            names |= {str(one): "the file", one.name: "the file"}
    for name in sorted((n for n in names if len(n) > 1), key=len, reverse=True):
        text = text.replace(name, names[name])
    return text


def in_utf8(name: str) -> str:
    """Return a file's name as it can be written everywhere: bytes that are not UTF-8 become %E9."""
    return _NO_TEXT.sub(lambda found: f"%{ord(found[0]) & 0xFF:02X}", name)
