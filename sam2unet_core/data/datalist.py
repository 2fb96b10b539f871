"""MONAI data lists: JSON with one list of entries per section."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sam2unet_core.errors import DataError


def read_datalist(path: Path | str, *, section: str) -> list[dict[str, Any]]:
    """Return the entries of one section of a MONAI data list; `test` also means `testing`.

    Raises:
        DataError: not readable, no such section, or an entry without `image`.
    """
    path = Path(path)
    content = _load_datalist(path)
    names = ("testing", "test") if section in ("testing", "test") else (section,)
    entries = next((content[name] for name in names if name in content), None)
    if not isinstance(entries, list):
        found = ", ".join(content) or "nothing"
        raise DataError(f"{path}: no list called {section!r}; found {found}")
    result = [{"image": each} if isinstance(each, str) else each for each in entries]
    for number, entry in enumerate(result):
        keys = ("image", "label") if isinstance(entry, dict) else ()
        if not keys or not all(isinstance(entry.get(k, ""), str) for k in keys):
            raise DataError(f"{path}: {section}[{number}] is {entry!r}; expected image and label")
        if not entry.get("image"):
            raise DataError(f"{path}: {section}[{number}] has no image")
        if not isinstance(entry.get("fold", 0), int):
            raise DataError(f"{path}: {section}[{number}] has fold {entry['fold']!r}, not a number")
    return result


def datalist_sections(path: Path | str) -> list[str]:
    """Return the section names of a MONAI data list; raise DataError if it is not readable."""
    content = _load_datalist(Path(path))
    return [name for name, entries in content.items() if isinstance(entries, list)]


def _load_datalist(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such data list") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable JSON data list ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object with lists such as training")
    return content
