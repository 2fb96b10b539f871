"""Errors as the protocol's `failed`: a kind, a message without names, and what to do."""

from __future__ import annotations

import errno
import logging
import os
import traceback
from collections.abc import Iterable
from pathlib import Path

from sam2unet_core.errors import (
    ConfigError,
    DataError,
    InputError,
    MissingExtraError,
    MissingWeightsError,
    OutOfMemoryError,
    SAM2UNetError,
    TaskError,
    WeightsError,
)
from sam2unet_core.protocol import ProtocolError

logger = logging.getLogger(__name__)

REMEDIES = {
    "task_mismatch": "choose a task that is made for such images, or force this one",
    "missing_weights": "fetch or import the weights, or choose another task",
    "bad_weights": "get the weights file again",
    "unreadable": "check the file in another viewer, or copy it again",
    "out_of_memory": "choose the device cpu, fewer frames or a smaller network",
    "disk_full": "free space in the folder for temporary files",
    "busy": "wait for the running request, or cancel it",
    "no_such_result": "segment again",
    "internal": "look at the worker's log; please report it, without patient data",
}
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What PyTorch's plain RuntimeErrors say, in lower case, where an allocation fails."""
_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (OutOfMemoryError, "out_of_memory"),
    (MemoryError, "out_of_memory"),
    (MissingWeightsError, "missing_weights"),
    (WeightsError, "bad_weights"),
    (InputError, "unreadable"),
    (DataError, "unreadable"),
    (TaskError, "bad_request"),
    (ConfigError, "bad_request"),
    (MissingExtraError, "unreadable"),
    (SAM2UNetError, "bad_request"),
)


class CancelledError(Exception):
    """The request was cancelled; raised from whatever was under way."""


def failure(error: BaseException, *, paths: Iterable[Path] = ()) -> dict[str, str]:
    """Return kind, message and remedy of an error; unexpected ones go to the log in full.

    Args:
        error: what was raised.
        paths: files and folders whose names may not be told: they may name patients.
    """
    if isinstance(error, ProtocolError):
        return {"kind": error.kind, "message": error.message, "remedy": error.remedy}
    kind, paths = _kind(error), tuple(paths)
    if kind == "internal":
        logger.error(without_names("".join(traceback.format_exception(error)), paths))
        message = f"unexpected {type(error).__name__}"
    elif kind == "out_of_memory":
        message = "the memory does not suffice"
    elif isinstance(error, OSError):
        message = error.strerror or type(error).__name__
    else:
        message = without_names(str(error), paths)
    remedy = REMEDIES.get(kind, "correct the request; docs/worker.md describes each")
    return {"kind": kind, "message": message, "remedy": remedy}


def without_names(text: str, paths: Iterable[Path]) -> str:
    """Return a message without the names of these files and of the folders they lie in."""
    names: dict[str, str] = {}
    for path in paths:
        for one in (path, Path(os.path.realpath(path))):
            names |= {str(folder): "its folder" for folder in one.parents if folder.name}
            names |= {str(one): "the file", one.name: "the file"}
    for name in sorted((n for n in names if len(n) > 1), key=len, reverse=True):
        text = text.replace(name, names[name])
    return text


def _kind(error: BaseException) -> str:
    for each, kind in _KINDS:
        if isinstance(error, each):
            if isinstance(error, InputError) and error.reason == "out_of_memory":
                return "out_of_memory"
            return kind
    if isinstance(error, OSError):
        if error.errno == errno.ENOMEM:
            return "out_of_memory"
        return "disk_full" if error.errno in _FULL else "unreadable"
    text = str(error).lower()
    if isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY):
        return "out_of_memory"
    return "internal"
