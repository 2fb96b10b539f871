"""Names of results: paths below the input for images, short keyed hashes for DICOM.

A hash is a pseudonym: it keeps UIDs and names out of the results, and `private/sources.csv` maps it
back. It is the same in every run, so that shards agree and a rerun writes the same names. Someone
who already has a UID can therefore check whether it is among the results.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from sam2unet_core.batch.previous import Content, PreviousResults
from sam2unet_core.batch.settings import Names
from sam2unet_core.names import in_utf8
from sam2unet_core.types import Series, Skipped

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
