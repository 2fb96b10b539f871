"""Which paths a request may name: those below folders that were allowed when the worker started."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sam2unet_core.protocol import ProtocolError


class Roots:
    """Folders below which files may be read; links are followed before it is decided.

    Args:
        folders: the allowed ones.
    """

    def __init__(self, folders: Iterable[Path | str]) -> None:
        self._folders = [Path(folder).resolve() for folder in folders]

    def allowed(self, text: str) -> Path:
        """Return the path that a request names.

        Raises:
            ProtocolError: `not_allowed` where it leads out of the allowed folders, whether or not
                there is something; `not_found` where it is allowed and there is nothing.
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
        return path

    def check_tree(self, folder: Path) -> None:
        """Refuse a folder with a link, at any depth, that leads out of the allowed folders.

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
            self.check(Path(parent, name) for name in (*folders, *names))

    def check(self, paths: Iterable[Path]) -> None:
        """Refuse links among the paths that lead out of the allowed folders.

        Raises:
            ProtocolError: `not_allowed`.
        """
        for path in paths:
            if path.is_symlink() and not self._holds(path):
                raise ProtocolError(
                    "not_allowed",
                    "the folder holds a link that leads out of the allowed folders",
                    "remove the link, or start the worker with --allow-root for where it leads",
                )

    def _holds(self, path: Path) -> bool:
        try:
            resolved = path.resolve()
        except (OSError, RuntimeError):  # a link that leads to itself
            return False
        return any(resolved.is_relative_to(folder) for folder in self._folders)
