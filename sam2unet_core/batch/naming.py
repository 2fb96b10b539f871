"""Names of results: paths below the input for images, short keyed hashes for DICOM.

A hash here is a pseudonym: it keeps UIDs and names out of the results, and `private/sources.csv`
leads back. It is the same in every run, so shards of one archive agree and a rerun writes to the
same names; whoever has a UID already can therefore tell whether it is among the results.
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
"""Hex digits of a short hash: 64 bits, so no two of a million inputs share one by chance."""


class Naming:
    """Names what a run writes.

    Args:
        names: see `Settings.names`.
        previous: what the results folder holds already; its names are not given to other files.
    """

    def __init__(self, names: Names, previous: PreviousResults | None = None) -> None:
        self.names = names
        self._previous = previous or PreviousResults({}, {})
        self._numbers: dict[str, int] = {}
        self._bases: set[str] = set()

    def short(self, kind: str, *parts: str) -> str:
        """Return the short keyed hash of some text; `kind` keeps studies from series."""
        text = "\0".join((kind, *parts)).encode("utf-8", "surrogatepass")
        return hmac.new(KEY, text, hashlib.sha256).hexdigest()[:LENGTH]

    def instance_id(self, relative: str, source: str, *, content: Content) -> str:
        """Return the manifest's id of the file at this path below its input.

        Where two inputs hold a file of the same path, the second one gets another id: in one run,
        and where the results folder holds results of the first one.

        Args:
            relative: the path below the input.
            source: the file itself, as `previous.source_of` gives it.
            content: hashes of the files that it is segmented with, its own among them.
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
        """Return the pseudonym of a DICOM study, None for other media."""
        if not series.is_dicom:
            return None
        return self.short("study", series.study_uid or f"no uid, in {_folder(series)}")

    def series(self, series: Series) -> str | None:
        """Return the pseudonym of a DICOM series, None for other media."""
        if not series.is_dicom:
            return None
        uid = series.series_uid or f"no uid, in {_folder(series)}"
        return self.short("series", series.study_uid or "", uid)

    def base(self, series: Series, instance: int, *, instance_id: str) -> str:
        """Return what the results of an instance are named after, below OUT, with `/`.

        Where two inputs hold a file of the same path, the second one is told apart by `~2`, now
        or in a run before.
        """
        if series.is_dicom and self.names != "keep":
            return f"{self.study(series)}/{self.series(series)}/{instance_id}"
        if self.names == "pseudonymize":
            return instance_id
        plain = base = _safe(relative_path(series, instance))
        number = self._numbers.get(instance_id, 0)
        if number:
            base = f"{plain}~{number + 1}"
        while base in self._bases:  # as where a file's own name ends with `~2`
            number += 1
            base = f"{plain}~{number + 1}"
        self._bases.add(base)
        return base


def relative_path(series: Series, instance: int) -> str:
    """Return the path of an instance below the input that the user named, with `/`."""
    return below(series.instances[instance].path, series.source_path)


def skipped_path(skipped: Skipped) -> str:
    """Return the path of a file that is no input, below the input that the user named."""
    return skipped.relative or skipped.path.name


def below(path: Path, folder: Path) -> str:
    """Return `path` as seen from `folder`, with `/`; its name alone where it is not below."""
    try:
        relative = path.relative_to(folder).as_posix()
    except ValueError:
        return path.name
    return path.name if relative == "." else relative


def _folder(series: Series) -> str:
    return Path(series.relative).parent.as_posix()


def _safe(relative: str) -> str:
    """Return a path that stays below OUT and clear of its own files; no two get the same one."""
    parts = [part for part in in_utf8(relative).split("/") if part not in ("", ".", "..")]
    bare = parts[0].lstrip("_").casefold()  # some file systems do not tell case apart
    reserved = bare == "private" or bare.startswith(".")
    return "/".join([f"_{parts[0]}" if reserved else parts[0], *parts[1:]])
