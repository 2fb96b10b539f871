"""A file made from frames that come one by one, there whole or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from sam2unet_core.files import unfinished


class FileWriter(ABC):
    """Context in which frames are added; the file appears under its name when the block ends.

    If the block ends by an error nothing appears. What is not finished has a hidden name that ends
    in `.part`; only a killed process leaves such a file behind.

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
        """Close what is open; called after `_finish`, or in its place."""
