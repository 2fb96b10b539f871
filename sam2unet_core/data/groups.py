"""Groups of images that belong together, such as a patient or a sequence."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path, PurePosixPath

from sam2unet_core.errors import DataError
from sam2unet_core.media.image import IMAGE_SUFFIXES


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
