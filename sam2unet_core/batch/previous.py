"""Results already in the folder, by source file: those of other files are not overwritten."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path

from sam2unet_core.batch.manifest import Line
from sam2unet_core.names import in_utf8

Content = Callable[[], Collection[str | None]]
"""Returns the hashes of all files of a unit; asked only where they matter."""


def source_of(path: Path, *, archive: Path | None = None, relative: str = "") -> str:
    """Return how `private/sources.csv` names a file: one name, wherever the run was started.

    Args:
        path: the file.
        archive: the archive that it was unpacked from, for this run only.
        relative: the path within it.
    """
    if archive is not None:
        return in_utf8(f"{os.path.realpath(archive)}!/{relative}")
    return in_utf8(os.path.realpath(path))


class PreviousResults:
    """The manifest lines that a results folder held when a run began.

    Args:
        lines: by id.
        sources: path of the file of each id, as `source_of` gives it.
    """

    def __init__(self, lines: Mapping[str, Line], sources: Mapping[str, str]) -> None:
        self._lines = dict(lines)  # as it is now: a run adds to the manifest while it names
        self._sources = sources

    def allows(self, identity: str, source: str, *, content: Content) -> bool:
        """Whether the file of that source may have this id, and replace the results under it.

        It may where the id is free, where they were made from the file at this very path, or from
        nothing but files whose content is at hand again, as after an archive was moved.

        Args:
            identity: the id.
            source: the file, as `source_of` gives it.
            content: of the unit it is part of.
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
        """Hashes of the files each result was made from, by its path."""
        found: dict[str, set[str | None]] = {}
        for line in self._lines.values():
            for each in line.outputs:
                found.setdefault(each.path, set()).add(line.source_sha256)
        return found
