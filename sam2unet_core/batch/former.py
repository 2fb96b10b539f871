"""What a results folder held before a run, and whose it is: nothing of another file is lost."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path

from sam2unet_core.batch.manifest import Line

Content = Callable[[], Collection[str | None]]
"""Returns the hashes of all files of a unit; asked only where they matter."""


def source_of(path: Path) -> str:
    """Return how `private/sources.csv` names a file: one name, wherever the run was started."""
    return os.path.realpath(path)


class Former:
    """The manifest lines that a results folder held when a run began.

    Args:
        lines: by id.
        sources: path of the file of each id, as `source_of` gives it.
    """

    def __init__(self, lines: Mapping[str, Line], sources: Mapping[str, str]) -> None:
        self._lines = dict(lines)  # as it is now: a run adds to the manifest while it names
        self._sources = sources

    def allows(self, identity: str, path: Path, *, content: Content) -> bool:
        """Whether the file at `path` may have this id, and replace the results that are under it.

        It may where the id is free, where they were made from the file at this very path, or from
        nothing but files whose content is at hand again, as after an archive was moved.

        Args:
            identity: the id.
            path: the file.
            content: of the unit it is part of.
        """
        line = self._lines.get(identity)
        if line is None or self._sources.get(identity) == source_of(path):
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
