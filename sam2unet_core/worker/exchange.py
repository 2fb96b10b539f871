"""The exchange folder: arrays come and go through its files, and ours never stay behind."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.protocol import (
    ARRAY_SUFFIX,
    check_reference,
    inside,
    open_array,
    write_array,
)

KEPT_REQUESTS = 2
"""Requests whose files stay: that of the last one and of the one before."""


class Exchange:
    """The folder the client gave, and the files that this worker made in it.

    Args:
        folder: there, and private to this user.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._requests: deque[set[Path]] = deque([set()])
        self._held: set[Path] = set()

    def begin_request(self) -> None:
        """Delete the files of the request before the last."""
        with self._lock:
            self._requests.append(set())
            old = self._requests.popleft() if len(self._requests) > KEPT_REQUESTS + 1 else set()
        self._delete(old)

    def drop_request(self) -> None:
        """Delete the files of the current request: it did not finish."""
        with self._lock:
            files, self._requests[-1] = self._requests[-1], set()
        self._delete(files)

    def new_name(self, suffix: str = ARRAY_SUFFIX) -> str:
        """Return a file name that is deleted with the request's other files."""
        name = f"w{uuid.uuid4().hex}{suffix}"
        self.adopt(name)
        return name

    def adopt(self, name: str) -> Path:
        """Count the file of that name among those of the current request; return its path."""
        path = inside(self.folder, name)
        with self._lock:
            self._requests[-1].add(path)
        return path

    def hold(self) -> Path:
        """Return a path for a file that stays until it is given to `release`."""
        path = self.folder / f"k{uuid.uuid4().hex}{ARRAY_SUFFIX}"
        with self._lock:
            self._held.add(path)
        return path

    def release(self, path: Path) -> None:
        """Delete a held file."""
        with self._lock:
            self._held.discard(path)
        self._delete({path})

    def write(self, array: NDArray[Any]) -> dict[str, Any]:
        """Write an array and return what an event says of it."""
        return write_array(self.folder, array, name=self.new_name())

    def clean(self) -> None:
        """Delete every file that this worker made."""
        with self._lock:
            files = set().union(self._held, *self._requests)
            self._requests = deque([set()])
            self._held = set()
        self._delete(files)

    def remove(self) -> None:
        """Remove the folder with all arrays, the client's too; other files, if any, stay in it."""
        self.clean()
        self._delete(set(self.folder.glob(f"*{ARRAY_SUFFIX}")))
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _delete(self, files: set[Path]) -> None:
        for path in files:
            with contextlib.suppress(OSError):  # on Windows: the client has it open
                path.unlink(missing_ok=True)


class ArrayWriter:
    """Writes an array item by item along its first axis; a context, for the open file.

    Args:
        exchange: where.
        dtype: of the values, as NumPy writes it.
        path: a held file; a new one of the request by default.
    """

    def __init__(self, exchange: Exchange, dtype: str, *, path: Path | None = None) -> None:
        self.path = path or exchange.adopt(exchange.new_name())
        self._dtype = np.dtype(dtype)
        self._shape: list[int] = []
        self._count = 0
        self._stream = self.path.open("wb")

    def __enter__(self) -> ArrayWriter:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._stream.close()

    def append(self, item: NDArray[Any]) -> None:
        """Write the next item; all are of one shape."""
        self._stream.write(np.ascontiguousarray(item, self._dtype).tobytes())
        self._shape = list(item.shape)
        self._count += 1

    @property
    def reference(self) -> dict[str, Any]:
        """What an event says of the array."""
        return {
            "file": self.path.name,
            "dtype": self._dtype.str,
            "shape": [self._count, *self._shape],
            "order": "C",
        }


def read_items(
    folder: Path, reference: object, *, chosen: list[int] | None = None
) -> Iterator[NDArray[Any]]:
    """Yield the items of an array along its first axis, reading one at a time.

    Args:
        folder: of the file.
        reference: what a request says of it.
        chosen: which items; all by default.

    Raises:
        ProtocolError: as `read_array`.
    """
    checked = check_reference(reference)
    count, *shape = checked["shape"]
    dtype = np.dtype(checked["dtype"])
    values = int(np.prod(shape, dtype=np.int64))
    with open_array(folder, checked) as stream:
        for index in range(count) if chosen is None else chosen:
            stream.seek(index * values * dtype.itemsize)
            yield np.fromfile(stream, dtype, count=values).reshape(shape)
