"""Converts errors to `failed` events: kind, message without file names, remedy."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable
from pathlib import Path

from sam2unet_core.errors import (
    ConfigError,
    DataError,
    InputError,
    MissingExtraError,
    MissingWeightsError,
    SAM2UNetError,
    TaskError,
    WeightsError,
    is_disk_full,
    is_out_of_memory,
)
from sam2unet_core.files import without_names
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
_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (MissingWeightsError, "missing_weights"),
    (WeightsError, "bad_weights"),
    (InputError, "unreadable"),
    (DataError, "unreadable"),
    (TaskError, "bad_request"),
    (ConfigError, "bad_request"),
    (MissingExtraError, "unreadable"),
    (SAM2UNetError, "bad_request"),
    (OSError, "unreadable"),
)


class CancelledError(Exception):
    """The request was cancelled."""


def failure(error: BaseException, *, paths: Iterable[Path] = ()) -> dict[str, str]:
    """Return kind, message and remedy of an error; unexpected ones are logged with traceback.

    Args:
        error: the error.
        paths: files and folders whose names must not be sent, because they may name patients.
    """
    if isinstance(error, ProtocolError):
        return {"kind": error.kind, "message": error.message, "remedy": error.remedy}
    kind, paths = _kind(error), tuple(paths)
    if kind == "internal":
        logger.error(without_names("".join(traceback.format_exception(error)), paths))
        message = f"unexpected {type(error).__name__}"
    elif kind == "out_of_memory":
        message = "out of memory"
    elif isinstance(error, OSError):
        message = error.strerror or type(error).__name__
    else:
        message = without_names(str(error), paths)
    remedy = REMEDIES.get(kind, "correct the request; docs/worker.md describes each")
    return {"kind": kind, "message": message, "remedy": remedy}


def _kind(error: BaseException) -> str:
    if is_out_of_memory(error):
        return "out_of_memory"
    if is_disk_full(error):
        return "disk_full"
    return next((kind for each, kind in _KINDS if isinstance(error, each)), "internal")
