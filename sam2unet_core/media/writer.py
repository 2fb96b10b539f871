"""Base of writers that write a file frame by frame, atomically."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from sam2unet_core.files import unfinished


class FileWriter(ABC):
    """Context manager to which frames are added; the file appears when the block ends.

    After an error there is no file. The unfinished file has a hidden name that ends in `.part`;
    only a killed process leaves one behind.

    Args:
        path: the file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._temporary = unfinished(self.path)

    def __enter__(self) -> Self:  # noqa: D105
        return self

    def __exit__(  # noqa: D105
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            try:
                if kind is None:
                    self._finish(self._temporary)
            finally:
                self._release()
            if kind is None:
                self._temporary.replace(self.path)
        finally:
            self._temporary.unlink(missing_ok=True)

    @abstractmethod
    def _finish(self, temporary: Path) -> None:
        """Complete the file `temporary`."""

    def _release(self) -> None:  # noqa: B027
        """Close open files; called after `_finish`, or instead of it after an error."""
