"""The exchange folder for arrays; the worker deletes its own files."""

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
"""Files of this many requests are kept: the last one and the one before."""


class Exchange:
    """The client's exchange folder and this worker's files in it.

    Args:
        folder: an existing folder, private to this user.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._requests: deque[set[Path]] = deque([set()])
        self._held: set[Path] = set()

    def begin_request(self) -> None:
        """Delete the files of old requests and start a new one."""
        with self._lock:
            self._requests.append(set())
            old = self._requests.popleft() if len(self._requests) > KEPT_REQUESTS + 1 else set()
        self._delete(old)

    def drop_request(self) -> None:
        """Delete the files of the current request, which did not finish."""
        with self._lock:
            files, self._requests[-1] = self._requests[-1], set()
        self._delete(files)

    def new_name(self, suffix: str = ARRAY_SUFFIX) -> str:
        """Return the name of a new file of the current request."""
        name = f"w{uuid.uuid4().hex}{suffix}"
        self.adopt(name)
        return name

    def adopt(self, name: str) -> Path:
        """Add a file to those of the current request and return its path."""
        path = inside(self.folder, name)
        with self._lock:
            self._requests[-1].add(path)
        return path

    def hold(self) -> Path:
        """Return a path for a file that is kept until `release`."""
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
        """Write an array and return its reference for an event."""
        return write_array(self.folder, array, name=self.new_name())

    def clean(self) -> None:
        """Delete all files of this worker."""
        with self._lock:
            files = set().union(self._held, *self._requests)
            self._requests = deque([set()])
            self._held = set()
        self._delete(files)

    def remove(self) -> None:
        """Delete all arrays, also the client's, and the folder if it has no other files."""
        self.clean()
        self._delete(set(self.folder.glob(f"*{ARRAY_SUFFIX}")))
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _delete(self, files: set[Path]) -> None:
        for path in files:
            with contextlib.suppress(OSError):  # on Windows, the client may have it open
                path.unlink(missing_ok=True)


class ArrayWriter:
    """A context that writes an array item by item along its first axis.

    Args:
        exchange: the exchange folder.
        dtype: type of the values, as a NumPy string.
        path: a held file; by default a new file of the current request.
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
        """Write the next item; all have the same shape."""
        self._stream.write(np.ascontiguousarray(item, self._dtype).tobytes())
        self._shape = list(item.shape)
        self._count += 1

    @property
    def reference(self) -> dict[str, Any]:
        """The array's reference for an event."""
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
        folder: the folder of the file.
        reference: the array reference in a request.
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
