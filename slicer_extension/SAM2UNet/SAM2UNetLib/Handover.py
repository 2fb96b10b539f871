"""Arrays and files on their way between Slicer and the worker, through the exchange folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import protocol
from .Collaborators import WorkerControl


class Handover:
    """One array for the worker, written in a thread or at once; removed when it was used."""

    def __init__(self, worker: WorkerControl) -> None:
        self.worker = worker
        self.reference: dict[str, Any] | None = None
        self.trouble: str | None = None
        self.path: Path | None = None
        self._thread: threading.Thread | None = None

    @property
    def isOpen(self) -> bool:
        """Whether `begin` was called and its end was not asked for."""
        return self._thread is not None

    @property
    def isWriting(self) -> bool:
        """Whether the thread is at work."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, array: NDArray[np.generic]) -> None:
        """Write an array in a thread; `trouble` says what went wrong, `reference` where it is."""
        self.path = self.reference = self.trouble = None
        self._thread = threading.Thread(target=self._write, args=(array,), daemon=True)
        self._thread.start()

    def beginFile(self, put: Callable[[], Path]) -> None:
        """Call a function in a thread that puts a file where the worker reads it, as `begin`.

        `path` says where it is.
        """
        self.path = self.reference = self.trouble = None
        self._thread = threading.Thread(target=self._put, args=(put,), daemon=True)
        self._thread.start()

    def end(self, timeout: float | None = None) -> None:
        """Wait for the thread, at most `timeout` seconds, and forget it."""
        if self._thread is not None:
            self._thread.join(timeout)
        self._thread = None

    def write(self, array: NDArray[np.generic]) -> dict[str, Any]:
        """Write an array at once, and return the reference that the worker gets.

        Raises:
            OSError: the disk is full, or the worker is gone.
            ProtocolError: the array is too large.
        """
        self.reference = None
        self.reference = protocol.write_array(self._folder(), array)
        return self.reference

    def take(self, reference: dict[str, Any]) -> NDArray[np.generic]:
        """Return an array that the worker wrote, and remove its file.

        Raises:
            OSError: the file cannot be read, or the worker is gone.
            ProtocolError: it is not the array of the reference.
        """
        array = protocol.read_array(self._folder(), reference)
        self._remove(reference)
        return array

    def found(
        self, result: dict[str, Any], *, columns: int
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield the frames with findings of a sparse result, and their masks `(K, H, W)`.

        They are read one at a time; the file is removed at the end.

        Args:
            result: of the worker.
            columns: of the frames.

        Raises:
            OSError, ProtocolError: as `take`.
        """
        numbers, reference = self.take(result["mask_frames"]), result["masks"]
        shape = protocol.check_reference(reference)["shape"][1:]  # K, H, ceil(W / 8)
        try:
            with protocol.open_array(self._folder(), reference) as stream:
                for number in numbers.tolist():
                    packed = np.fromfile(stream, np.uint8, int(np.prod(shape))).reshape(shape)
                    yield number, np.unpackbits(packed, axis=-1, count=columns)
        finally:
            if self.worker.exchange is not None:
                self._remove(reference)

    def keep(self, name: str, target: Path) -> None:
        """Put a file that the worker wrote in its place, all of it or nothing.

        Raises:
            OSError: it cannot be written, or the worker is gone.
            ProtocolError: the name leads out of the exchange folder.
        """
        made = protocol.inside(self._folder(), name)
        part = target.with_name(f"{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(made.read_bytes())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
            made.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove what was written."""
        reference, self.reference = self.reference, None
        if reference is not None and self.worker.exchange is not None:
            self._remove(reference)

    def _write(self, array: NDArray[np.generic]) -> None:
        try:
            self.write(array)
        except OSError as error:
            self.trouble = str(error.strerror or error)
        except protocol.ProtocolError as error:
            self.trouble = error.message

    def _put(self, put: Callable[[], Path]) -> None:
        try:
            self.path = put()
        except OSError as error:
            self.trouble = str(error.strerror or error)

    def _remove(self, reference: dict[str, Any]) -> None:
        protocol.inside(self._folder(), reference["file"]).unlink(missing_ok=True)

    def _folder(self) -> Path:
        if self.worker.exchange is None:
            raise OSError("the worker was ended")
        return self.worker.exchange
