"""MONAI data lists, and groups of images that belong together, such as those of a patient."""

from __future__ import annotations

import csv
import json
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Any

from sam2unet_core.errors import DataError
from sam2unet_core.media.image import IMAGE_SUFFIXES


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


def read_groups(path: Path | str) -> dict[str, str]:
    """Read a CSV with the columns `name` and `group`.

    Returns:
        The group by name; a name is a file name or a relative path, without suffix.

    Raises:
        DataError: not readable, a column or a value is missing, or a name is in two groups.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = list(reader.fieldnames or []), list(reader)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such groups file") from error
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV ({error})") from error
    if not {"name", "group"} <= set(columns):
        raise DataError(
            f"{path}: the first line names the columns {', '.join(columns) or 'none'}; expected "
            "name and group"
        )
    groups: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        name, group = (row["name"] or "").strip(), (row["group"] or "").strip()
        if not name or not group:
            raise DataError(f"{path}, line {number}: name or group is empty")
        key = _without_suffix(name)
        if groups.setdefault(key, group) != group:
            raise DataError(f"{path}, line {number}: {name} is in {groups[key]} and in {group}")
    return groups


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), so that equal names compare equal."""
    return unicodedata.normalize("NFC", name)


def group_of(name: str, groups: dict[str, str]) -> str | None:
    """Return the group of a sample, looked up by relative path, then by file name."""
    name = composed(name)
    return groups.get(name) or groups.get(name.rpartition("/")[2])


def _without_suffix(name: str) -> str:
    path = PurePosixPath(composed(name).replace("\\", "/"))
    known = path.suffix.lower() in IMAGE_SUFFIXES
    return str(path.with_suffix("") if known else path)
