"""Results already in the folder, by source file: those of other files are not overwritten."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path

from sam2unet_core.batch.manifest import Line
from sam2unet_core.names import in_utf8

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
