"""Units of work: the series to segment, and the names of their results.

Images are named by their paths below the input, DICOM files by short keyed hashes. A hash is a
pseudonym: it keeps UIDs and names out of the results, and `private/sources.csv` maps it back. It is
the same in every run, so that shards agree and a rerun writes the same names. Someone who already
has a UID can therefore check whether it is among the results.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sam2unet_core.batch.folder import Line, Status, digest
from sam2unet_core.errors import InputError
from sam2unet_core.files import file_sha256, in_utf8, write_bytes
from sam2unet_core.media.planes import source_series
from sam2unet_core.report import Entry
from sam2unet_core.types import Instance, Kind, Series, Skipped

if TYPE_CHECKING:
    from sam2unet_core.batch.settings import Names


@dataclass
class Unit:
    """One series that is segmented as a whole.

    Attributes:
        series: the frames.
        ids: the manifest's id of each instance.
        base: base name for results of the whole series.
        bases: base names for results of each instance.
        study, series_name: pseudonyms; None for media other than DICOM.
        relatives: paths of the instances below their input, for `private/sources.csv`.
        problems: why an instance or a part of it could not be read, by its index.
    """

    series: Series
    ids: tuple[str, ...]
    base: str
    bases: tuple[str, ...]
    study: str | None
    series_name: str | None
    relatives: tuple[str, ...]
    problems: dict[int, InputError] = field(default_factory=dict)

    @classmethod
    def of(cls, series: Series, naming: Naming) -> Unit:
        """Create the unit of a series and name its results."""
        count = range(len(series.instances))
        relatives = tuple(relative_path(series, index) for index in count)

        @cache
        def content() -> frozenset[str | None]:
            return frozenset(_hash(instance) for instance in series.instances)

        ids = tuple(
            naming.instance_id(relative, _source(series, index), content=content)
            for index, relative in enumerate(relatives)
        )
        bases = tuple(naming.base(series, index, instance_id=ids[index]) for index in count)
        return cls(
            series,
            ids,
            bases[0],
            bases,
            naming.study(series),
            naming.series(series),
            relatives,
        )

    @property
    def dicom(self) -> bool:
        """Whether it came from DICOM files."""
        return self.series.is_dicom

    @property
    def moving(self) -> bool:
        """Whether its frames are a sequence in time, as in a video."""
        return self.series.frame_count > 1 and self.series.frames_per_second is not None

    @property
    def cut(self) -> bool:
        """Whether its frames were reformatted from a volume stored in a different plane."""
        return source_series(self.series) is not self.series

    def key(self, settings_digest: str) -> str:
        """Return the hash of content and settings.

        Raises:
            OSError: a file cannot be read.
        """
        instances = self.series.instances
        content = [instance.sha256 for instance in instances]
        content += [file_sha256(path) for each in instances for path in each.companions]
        return digest({"content": content, "frames": self._kind(), "settings": settings_digest})

    def frame_base(self, instance: int, number: int) -> str:
        """Return the base name for results of one frame, below OUT."""
        base = self.bases[instance]
        if self.series.kind in (Kind.IMAGES, Kind.STACK, Kind.VOLUME) and not self.cut:
            return base
        return f"{base}.frames/{number:06d}"

    def problem(self, index: int, error: InputError) -> None:
        """Record why an instance or a part of it could not be read."""
        self.problems.setdefault(index, error)

    def line(self, index: int, *, key: str, status: Status) -> Line:
        """Return the manifest line of an instance, with what is known before segmentation."""
        return Line(
            id=self.ids[index],
            source_sha256=self.series.instances[index].sha256,
            kind=self.series.kind,
            study=self.study,
            series=self.series_name,
            status=status,
            key=key,
        )

    def _kind(self) -> list[object]:
        """Distinguish series of the same files, such as two planes of a volume."""
        series = self.series
        return [series.kind, series.frame_count, series.rows, series.columns]


def unit_rows(unit: Unit) -> Iterator[Row]:
    """Yield a row for each instance of a unit."""
    for index, instance in enumerate(unit.series.instances):
        yield {
            "id": unit.ids[index],
            "study": unit.study or "",
            "series": unit.series_name or "",
            "source": _source(unit.series, index),
            "relative": in_utf8(unit.relatives[index]),
            "study_instance_uid": unit.series.study_uid or "",
            "series_instance_uid": unit.series.series_uid or "",
            "sop_instance_uid": instance.sop_instance_uid or "",
        }


def _source(series: Series, index: int) -> str:
    """Return the absolute path of an instance for `private/sources.csv`."""
    relative = relative_path(series, index)
    return source_of(series.instances[index].path, archive=series.archive, relative=relative)


def _hash(instance: Instance) -> str | None:
    try:
        return instance.sha256
    except OSError:  # reported when the frames are read
        return None


KEY = b"sam2unet results/1"
LENGTH = 16
"""Hex digits of a short hash: 64 bits, so a million inputs have no collision by chance."""


class Naming:
    """Assigns ids and names to results.

    Args:
        names: see `Settings.names`.
        previous: results already in the folder; their names are not given to other files.
    """

    def __init__(self, names: Names, previous: PreviousResults | None = None) -> None:
        self.names = names
        self._previous = previous or PreviousResults({}, {})
        self._numbers: dict[str, int] = {}
        self._bases: set[str] = set()

    def short(self, kind: str, *parts: str) -> str:
        """Return the short keyed hash of text; `kind` separates studies, series and instances."""
        text = "\0".join((kind, *parts)).encode("utf-8", "surrogatepass")
        return hmac.new(KEY, text, hashlib.sha256).hexdigest()[:LENGTH]

    def instance_id(self, relative: str, source: str, *, content: Content) -> str:
        """Return the manifest's id of the file at this path below its input.

        If two inputs hold a file of the same path, the second one gets a different id, also if the
        first one was segmented in a previous run.

        Args:
            relative: the path below the input.
            source: the file's absolute path, from `previous.source_of`.
            content: hashes of all files of its unit.
        """
        number = 0
        while True:
            identity = self.short("instance", relative, *([str(number)] if number else []))
            free = identity not in self._numbers
            if free and self._previous.allows(identity, source, content=content):
                self._numbers[identity] = number
                return identity
            number += 1

    def study(self, series: Series) -> str | None:
        """Return the pseudonym of a DICOM study; None for other media."""
        if not series.is_dicom:
            return None
        return self.short("study", series.study_uid or f"no uid, in {_folder(series)}")

    def series(self, series: Series) -> str | None:
        """Return the pseudonym of a DICOM series; None for other media."""
        if not series.is_dicom:
            return None
        uid = series.series_uid or f"no uid, in {_folder(series)}"
        return self.short("series", series.study_uid or "", uid)

    def base(self, series: Series, instance: int, *, instance_id: str) -> str:
        """Return the base name of an instance's results: a path below OUT, with `/`.

        If two inputs hold a file of the same path, the second one gets the suffix `~2`.
        """
        if series.is_dicom and self.names != "keep":
            return f"{self.study(series)}/{self.series(series)}/{instance_id}"
        if self.names == "pseudonymize":
            return instance_id
        plain = base = _safe(relative_path(series, instance))
        number = self._numbers.get(instance_id, 0)
        if number:
            base = f"{plain}~{number + 1}"
        while base in self._bases:  # a file's own name may end with `~2`
            number += 1
            base = f"{plain}~{number + 1}"
        self._bases.add(base)
        return base


def relative_path(series: Series, instance: int) -> str:
    """Return the path of an instance below the input given by the user, with `/`."""
    return below(series.instances[instance].path, series.source_path)


def skipped_path(skipped: Skipped) -> str:
    """Return the path of a skipped file below the input given by the user."""
    return skipped.relative or skipped.path.name


def below(path: Path, folder: Path) -> str:
    """Return `path` relative to `folder`, with `/`; only its name if it is not below `folder`."""
    try:
        relative = path.relative_to(folder).as_posix()
    except ValueError:
        return path.name
    return path.name if relative == "." else relative


def _folder(series: Series) -> str:
    return Path(series.relative).parent.as_posix()


def _safe(relative: str) -> str:
    """Map a path, one to one, to one below OUT that does not clash with the folder's own files."""
    parts = [part for part in in_utf8(relative).split("/") if part not in ("", ".", "..")]
    bare = parts[0].lstrip("_").casefold()  # some file systems ignore case
    reserved = bare == "private" or bare.startswith(".")
    return "/".join([f"_{parts[0]}" if reserved else parts[0], *parts[1:]])


Content = Callable[[], Collection[str | None]]
"""Returns the hashes of all files of a unit; called only when they are needed."""


def source_of(path: Path, *, archive: Path | None = None, relative: str = "") -> str:
    """Return a file's absolute path for `private/sources.csv`.

    Args:
        path: the file.
        archive: the archive from which it was unpacked temporarily.
        relative: its path within the archive.
    """
    if archive is not None:
        return in_utf8(f"{os.path.realpath(archive)}!/{relative}")
    return in_utf8(os.path.realpath(path))


class PreviousResults:
    """The manifest lines of a results folder at the start of a run.

    Args:
        lines: the lines by id.
        sources: path of each id's file, from `source_of`.
    """

    def __init__(self, lines: Mapping[str, Line], sources: Mapping[str, str]) -> None:
        self._lines = dict(lines)  # a copy, because the run appends to the manifest
        self._sources = sources

    def allows(self, identity: str, source: str, *, content: Content) -> bool:
        """Return whether a file may have this id and replace the results under it.

        It may if the id is free, if the results were made from the file at this path, or if they
        were made only from files whose content is in the unit, as after the folder was moved.

        Args:
            identity: the id.
            source: the file's path, from `source_of`.
            content: the hashes of the file's unit.
        """
        line = self._lines.get(identity)
        if line is None or self._sources.get(identity) == source:
            return True
        made_from = {line.source_sha256}
        for each in line.outputs:
            made_from.update(self._made_from[each.path])
        return None not in made_from and made_from <= set(content())

    @cached_property
    def _made_from(self) -> dict[str, set[str | None]]:
        """Hashes of the source files of each result, by the result's path."""
        found: dict[str, set[str | None]] = {}
        for line in self._lines.values():
            for each in line.outputs:
                found.setdefault(each.path, set()).add(line.source_sha256)
        return found


PRIVATE = "private"
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
        self._folder = out / PRIVATE
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
