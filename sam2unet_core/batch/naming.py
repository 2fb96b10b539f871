"""Names of results: paths below the input for images, short keyed hashes for DICOM.

A hash here is a pseudonym: it keeps UIDs and names out of the results, and `private/sources.csv`
leads back. It is the same in every run, so shards of one archive agree and a rerun writes to the
same names; whoever has a UID already can therefore tell whether it is among the results.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from sam2unet_core.batch.settings import Names
from sam2unet_core.types import Series, Skipped

KEY = b"sam2unet results/1"
LENGTH = 16
"""Hex digits of a short hash: 64 bits, so no two of a million inputs share one by chance."""


class Naming:
    """Names what a run writes.

    Args:
        names: see `Settings.names`.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self._ids: dict[str, int] = {}
        self._bases: dict[str, int] = {}

    def short(self, kind: str, *parts: str) -> str:
        """Return the short keyed hash of some text; `kind` keeps studies from series."""
        text = "\0".join((kind, *parts)).encode("utf-8", "surrogateescape")
        return hmac.new(KEY, text, hashlib.sha256).hexdigest()[:LENGTH]

    def instance_id(self, relative: str) -> str:
        """Return the manifest's id of the file at this path below its input.

        Where two inputs hold a file of the same path, the second one in a run gets another id.
        """
        seen = self._ids.get(relative, 0)
        self._ids[relative] = seen + 1
        return self.short("instance", relative, *([str(seen)] if seen else []))

    def study(self, series: Series) -> str | None:
        """Return the pseudonym of a DICOM study, None for other media."""
        if not is_dicom(series):
            return None
        return self.short("study", series.study_uid or f"no uid, in {_folder(series)}")

    def series(self, series: Series) -> str | None:
        """Return the pseudonym of a DICOM series, None for other media."""
        if not is_dicom(series):
            return None
        uid = series.series_uid or f"no uid, in {_folder(series)}"
        return self.short("series", series.study_uid or "", uid)

    def base(self, series: Series, instance: int, *, instance_id: str) -> str:
        """Return what the results of an instance are named after, below OUT, with `/`.

        Where two inputs hold a file of the same path, the second one is told apart by `~2`.
        """
        if is_dicom(series) and self.names != "keep":
            return f"{self.study(series)}/{self.series(series)}/{instance_id}"
        if self.names == "pseudonymize":
            return instance_id
        base = _safe(relative_path(series, instance))
        seen = self._bases.get(base, 0)
        self._bases[base] = seen + 1
        return f"{base}~{seen + 1}" if seen else base


def is_dicom(series: Series) -> bool:
    """Whether the series came from DICOM files."""
    return series.instances[0].sop_class_uid is not None


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
    """Return a path that stays below OUT and clear of its own files."""
    parts = [part for part in relative.split("/") if part not in ("", ".", "..")]
    reserved = parts[0] in ("private",) or parts[0].startswith(".")
    return "/".join([f"_{parts[0]}" if reserved else parts[0], *parts[1:]])
