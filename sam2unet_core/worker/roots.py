"""Restricts requests to paths below the folders that were allowed when the worker started."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from sam2unet_core.protocol import ProtocolError

_HEADERS = (".mhd", ".nhdr")
_DATA_FILE = re.compile(r"^[ \t]*(?:ElementDataFile[ \t]*=|data ?file[ \t]*:)(.*)$", re.I | re.M)
_LONGEST_HEADER = 1 << 20


class Roots:
    """Folders below which files may be read; links are resolved before the check.

    Args:
        folders: the allowed folders.
    """

    def __init__(self, folders: Iterable[Path | str]) -> None:
        self._folders = [_real(Path(folder)) for folder in folders]

    def allowed(self, text: str) -> Path:
        """Return the path in a request.

        Raises:
            ProtocolError: `not_allowed` if it is outside the allowed folders, whether it exists or
                not; `not_found` if it is allowed but does not exist.
        """
        path = Path(text)
        if not path.is_absolute() or not self._holds(path):
            raise ProtocolError(
                "not_allowed",
                "path outside the folders that were allowed when the worker started",
                "start the worker with --allow-root for the folder that holds it",
            )
        if not path.exists():
            raise ProtocolError("not_found", "no such file or folder", "check the path")
        if not path.is_file() and not path.is_dir():
            raise ProtocolError(
                "unreadable", "neither a file nor a folder (a pipe or a device)", "give a file"
            )
        if path.suffix.lower() in _HEADERS and path.is_file():
            self._check_header(path)
        return path

    def check_tree(self, folder: Path) -> None:
        """Check that no link in a folder, at any depth, leads out of the allowed folders.

        Raises:
            ProtocolError: `not_allowed`.
        """
        entered: set[str] = set()
        for parent, folders, names in os.walk(folder, followlinks=True):
            real = os.path.realpath(parent)
            if real in entered:
                folders.clear()
                continue
            entered.add(real)
            if not self._holds(Path(parent)):  # a Windows junction is not a symbolic link
                raise _leads_out()
            self.check(Path(parent, name) for name in (*folders, *names))

    def check(self, paths: Iterable[Path]) -> None:
        """Check that no link among the paths leads out of the allowed folders.

        Raises:
            ProtocolError: `not_allowed`.
        """
        for path in paths:
            if path.is_symlink() and not self._holds(path):
                raise _leads_out()

    def _check_header(self, path: Path) -> None:
        """Check that the data files named in a volume's header are in the allowed folders."""
        with path.open("rb") as stream:
            text = stream.read(_LONGEST_HEADER).decode("latin-1")
        named = _DATA_FILE.search(text)
        names = [] if named is None else [named[1], *text[named.end() :].splitlines()]
        for name in names:  # after the word LIST, one file per line
            if name.strip() and not self._holds(path.parent / name.strip()):
                raise _leads_out()

    def _holds(self, path: Path) -> bool:
        try:
            resolved = _real(path)
        except (OSError, ValueError):  # not a valid path
            return False
        return any(resolved.is_relative_to(folder) for folder in self._folders)


def _real(path: Path) -> Path:
    """Resolve all links of a path; unlike `Path.resolve`, accept circular links."""
    return Path(os.path.realpath(path))


def _leads_out() -> ProtocolError:
    return ProtocolError(
        "not_allowed",
        "a link or the name of a data file leads out of the allowed folders",
        "remove it, or start the worker with --allow-root for its target",
    )
