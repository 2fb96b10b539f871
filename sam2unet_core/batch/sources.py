"""`private/`: the table that links results to patients, readable only by its owner."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from sam2unet_core.batch.previous import source_of
from sam2unet_core.batch.units import Unit, instance_source
from sam2unet_core.files import write_bytes
from sam2unet_core.names import in_utf8
from sam2unet_core.report import Entry
from sam2unet_core.types import Skipped

FOLDER = "private"
COLUMNS = (
    "id",
    "study",
    "series",
    "source",
    "relative",
    "study_instance_uid",
    "series_instance_uid",
    "sop_instance_uid",
)
Row = dict[str, str]


class PrivateFolder:
    """The folder `private` of a results folder.

    Args:
        out: the results folder.
        suffix: the shard's suffix, or empty.
    """

    def __init__(self, out: Path, *, suffix: str = "") -> None:
        self._folder = out / FOLDER
        self._file = self._folder / f"sources{suffix}.csv"

    def create(self) -> None:
        """Create the folder, accessible only to its owner."""
        (self._folder / "report").mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)

    def add(self, rows: Iterable[Row]) -> None:
        """Append rows to the table immediately, so that they survive a killed run."""
        text = _table(rows)
        handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "a", encoding="utf-8") as stream:
            header = f"{','.join(COLUMNS)}\n" if stream.tell() == 0 else ""
            stream.write(header + text)

    def tidy(self) -> None:
        """Rewrite the table with one row per id, including those of shards."""
        rows = self._rows()
        text = f"{','.join(COLUMNS)}\n{_table(rows[key] for key in sorted(rows))}"
        final = self._folder / "sources.csv"
        write_bytes(final, text.encode())
        final.chmod(0o600)

    def sources(self) -> dict[str, str]:
        """Return the path of each id's file."""
        return {identity: row["source"] for identity, row in self._rows().items()}

    def take(self, other: Path) -> None:
        """Add the rows of another results folder."""
        rows = PrivateFolder(other)._rows()
        self.add(rows.values())

    def save_entry(self, first_id: str, entry: Entry) -> None:
        """Store the report entry of a unit; it is private because its pictures may show names."""
        content = json.dumps(entry.to_dict(), ensure_ascii=False)
        write_bytes(self._entry_file(first_id), content.encode())

    def drop_entry(self, first_id: str) -> None:
        """Delete the report entry of a unit, if there is one."""
        self._entry_file(first_id).unlink(missing_ok=True)

    def load_entry(self, first_id: str) -> Entry | None:
        """Return the report entry of the unit whose first instance has this id, or None."""
        try:
            text = self._entry_file(first_id).read_text(encoding="utf-8")
            return Entry.from_dict(json.loads(text))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _entry_file(self, first_id: str) -> Path:
        return self._folder / "report" / f"{first_id}.json"

    def _rows(self) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        shards = sorted(self._folder.glob("sources.*-of-*.csv"))
        for path in (self._folder / "sources.csv", *shards):
            rows.update({row["id"]: row for row in _read(path)})
        return rows


def unit_rows(unit: Unit) -> Iterator[Row]:
    """Yield a row for each instance of a unit."""
    for index, instance in enumerate(unit.series.instances):
        yield {
            "id": unit.ids[index],
            "study": unit.study or "",
            "series": unit.series_name or "",
            "source": instance_source(unit.series, index),
            "relative": in_utf8(unit.relatives[index]),
            "study_instance_uid": unit.series.study_uid or "",
            "series_instance_uid": unit.series.series_uid or "",
            "sop_instance_uid": instance.sop_instance_uid or "",
        }


def skipped_row(skipped: Skipped, identity: str, relative: str) -> Row:
    """Return the row of a skipped file."""
    row = dict.fromkeys(COLUMNS, "")
    source = source_of(skipped.path, archive=skipped.archive, relative=relative)
    return row | {"id": identity, "source": source, "relative": in_utf8(relative)}


def _table(rows: Iterable[Row]) -> str:
    """Return rows as CSV; names with carriage returns are quoted, too."""
    text = io.StringIO(newline="")
    plain = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    quoting = csv.DictWriter(text, COLUMNS, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        (quoting if any("\r" in value for value in row.values()) else plain).writerow(row)
    return text.getvalue()


def _read(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [row for row in csv.DictReader(stream) if row.get("id") and row.get("relative")]
