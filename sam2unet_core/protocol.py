"""Words that the worker and its clients exchange: one JSON object a line, arrays through files.

Standard library alone; the functions on arrays import NumPy when they are called. 3D Slicer's
module carries a copy of this file, so nothing here may import anything else of the package.

    request   {"v": 1, "id": 7, "op": "segment", ...}
    event     {"v": 1, "id": 7, "event": "progress" | "partial" | one of TERMINAL, ...}

Each request ends with exactly one event of TERMINAL. A line that is no request is answered by a
`failed` whose id is null.
"""

from __future__ import annotations

import json
import math
import os
import stat
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROTOCOL_VERSION = 1
MAX_LINE = 1 << 20
"""Bytes of one line, its line feed included."""
MAX_ARRAY_BYTES = 1 << 34
"""Bytes of one array file."""
MAX_DIMENSIONS = 5
MAX_ID = 2**53 - 1
"""Largest number that every JSON reader keeps exactly."""
TERMINAL = frozenset({"finished", "failed", "cancelled"})
OPERATIONS = (
    "hello",
    "load",
    "fits",
    "inspect",
    "segment",
    "rethreshold",
    "read_frames",
    "write_seg",
    "make_sample",
    "cancel",
    "shutdown",
)
FAILURE_KINDS = (
    "bad_request",
    "too_large",
    "not_allowed",
    "not_found",
    "task_mismatch",
    "missing_weights",
    "bad_weights",
    "unreadable",
    "out_of_memory",
    "disk_full",
    "busy",
    "no_such_result",
    "internal",
)
"""What `failed` may name as its `kind`; clients add `worker_died`."""
DTYPES = ("|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8")
"""Types an array file may hold, as NumPy writes them: little-endian numbers."""
ARRAY_SUFFIX = ".raw"


class ProtocolError(Exception):
    """A message or an array that the protocol does not allow.

    Args:
        kind: one of FAILURE_KINDS.
        message: what was wrong, what was got; names no folder.
        remedy: what to do.
    """

    def __init__(self, kind: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.remedy = remedy or "correct the request; docs/worker.md describes each"


def request(identifier: int, operation: str, **fields: Any) -> dict[str, Any]:
    """Return the request `operation` under a number the client has not used before."""
    return {"v": PROTOCOL_VERSION, "id": identifier, "op": operation, **fields}


def event(identifier: int | None, name: str, **fields: Any) -> dict[str, Any]:
    """Return the event `name` that answers the request of that number."""
    return {"v": PROTOCOL_VERSION, "id": identifier, "event": name, **fields}


def encode(message: Mapping[str, Any]) -> bytes:
    """Return a message as one line of ASCII, line feed included.

    Raises:
        ProtocolError: `too_large`, or `bad_request` for a number that is not finite or something
            JSON has no form for.
    """
    try:
        text = json.dumps(message, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError("bad_request", f"message that JSON cannot hold: {error}") from error
    line = text.encode("ascii") + b"\n"
    _check_length(len(line))
    return line


def decode(line: bytes) -> dict[str, Any]:
    """Return the message in a line.

    Raises:
        ProtocolError: `too_large`, or `bad_request` where the line is no JSON object in UTF-8 or
            holds a number that is not finite.
    """
    _check_length(len(line))
    try:
        text = line.decode("utf-8")
        message = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise ProtocolError("bad_request", "line that is not UTF-8") from error
    except RecursionError as error:
        raise ProtocolError("bad_request", "line that nests too deeply") from error
    except ValueError as error:
        raise ProtocolError("bad_request", "line that is no JSON") from error
    if not isinstance(message, dict):
        kind = type(message).__name__
        raise ProtocolError("bad_request", f"line that holds a {kind}, not an object")
    return message


def is_safe_basename(name: object) -> bool:
    """Return whether `name` is a plain file name on every system: no separator, no drive, no dots.

    Only ASCII letters, digits, `-`, `_` and dots that do not begin the name; at most 128.
    """
    return (
        isinstance(name, str)
        and 0 < len(name) <= 128
        and not name.startswith(".")
        and not name.endswith(".")
        and all(c.isascii() and (c.isalnum() or c in "-_.") for c in name)
    )


def inside(folder: Path | str, name: object) -> Path:
    """Return the path of a file of that name in the folder, whether it exists or not.

    Raises:
        ProtocolError: `not_allowed` where the name is no plain file name.
    """
    if not is_safe_basename(name):
        raise ProtocolError("not_allowed", "file name with a folder or unusual characters in it")
    return Path(folder) / str(name)


def write_array(
    folder: Path | str, array: NDArray[Any], *, name: str | None = None
) -> dict[str, Any]:
    """Write an array into the exchange folder and return what a message says of it.

    Args:
        folder: the exchange folder.
        array: any of DTYPES, any layout; written row-major, little-endian, without a header.
        name: the file's name; a new random one by default.

    Raises:
        ProtocolError: `bad_request` for another type, `too_large`, `not_allowed` for the name.
        OSError: it cannot be written; nothing is left behind then.
    """
    import numpy as np  # noqa: PLC0415 - clients without arrays need no NumPy

    little: NDArray[Any] = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    little = little.reshape(array.shape)  # a scalar came back with one dimension
    reference = {
        "file": name or f"{uuid.uuid4().hex}{ARRAY_SUFFIX}",
        "dtype": little.dtype.str,
        "shape": list(little.shape),
        "order": "C",
    }
    check_reference(reference)
    path = inside(folder, reference["file"])
    try:
        with path.open("wb") as stream:
            stream.write(little.reshape(-1).view(np.uint8).data)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return reference


def read_array(
    folder: Path | str, reference: object, *, max_bytes: int = MAX_ARRAY_BYTES
) -> NDArray[Any]:
    """Return the array that a message refers to.

    Args:
        folder: the exchange folder.
        reference: `{"file", "dtype", "shape", "order"}`.
        max_bytes: refuse more.

    Raises:
        ProtocolError: `bad_request` for a reference that is none or does not fit the file,
            `too_large`, `not_allowed` for a name outside the folder or a link, `not_found`.
    """
    import numpy as np  # noqa: PLC0415 - clients without arrays need no NumPy

    checked, size = check_reference(reference), array_bytes(reference)
    if size > max_bytes:
        raise ProtocolError("too_large", f"array of {size} bytes; at most {max_bytes}")
    with open_array(folder, checked) as stream:
        values: NDArray[Any] = np.fromfile(stream, np.dtype(checked["dtype"]))
    return values.reshape(checked["shape"])


def open_array(folder: Path | str, reference: object) -> BinaryIO:
    """Open the file of an array for reading, once it is known to hold as much as it should.

    Raises:
        ProtocolError: as `read_array`.
    """
    checked, size = check_reference(reference), array_bytes(reference)
    stream = os.fdopen(_open_plain_file(inside(folder, checked["file"])), "rb")
    found = os.fstat(stream.fileno()).st_size
    if found != size:
        stream.close()
        raise ProtocolError("bad_request", f"array file of {found} bytes, expected {size}")
    return stream


def check_reference(reference: object) -> dict[str, Any]:
    """Return a reference to an array once it is known to be one.

    Raises:
        ProtocolError: `bad_request`, `too_large` or `not_allowed`.
    """
    if not isinstance(reference, dict) or set(reference) != {"file", "dtype", "shape", "order"}:
        raise ProtocolError("bad_request", "an array is given as {file, dtype, shape, order}")
    if not is_safe_basename(reference["file"]):
        raise ProtocolError("not_allowed", "array file with a folder or unusual characters in it")
    if reference["dtype"] not in DTYPES or reference["order"] != "C":
        raise ProtocolError("bad_request", f"array: dtype one of {', '.join(DTYPES)}, order C")
    shape = reference["shape"]
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(map(_is_size, shape)):
        raise ProtocolError("bad_request", f"array shape: at most {MAX_DIMENSIONS} sizes from 0")
    if array_bytes(reference) > MAX_ARRAY_BYTES:
        raise ProtocolError("too_large", f"array of more than {MAX_ARRAY_BYTES} bytes")
    return reference


def array_bytes(reference: Any) -> int:
    """Return how many bytes a checked reference's file holds."""
    size: int = int(reference["dtype"][2:]) * math.prod(reference["shape"])
    return size


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _check_length(length: int) -> None:
    if length > MAX_LINE:
        raise ProtocolError(
            "too_large",
            f"line of {length} bytes; at most {MAX_LINE}",
            "send arrays through files, and long lists in several requests",
        )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _open_plain_file(path: Path) -> int:
    """Open a regular file for reading; a link or a pipe under its name is refused."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        if path.is_symlink():
            raise ProtocolError("not_allowed", "array file that is a link")
        descriptor = os.open(path, flags)
    except FileNotFoundError as error:
        raise ProtocolError("not_found", "array file that is not in the exchange folder") from error
    except OSError as error:
        raise ProtocolError("not_allowed", "array file that cannot be opened") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ProtocolError("not_allowed", "array file that is no plain file")
    return descriptor
