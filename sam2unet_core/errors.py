"""Errors a user can act on: each message says what was wrong, what was got and what to do."""

import errno
from enum import StrEnum


class Reason(StrEnum):
    """Why an input has no result, or no whole one: the manifest's closed list."""

    NOT_DICOM = "not_dicom"
    NOT_AN_IMAGE = "not_an_image"
    TASK_MISMATCH = "task_mismatch"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported_transfer_syntax"
    CORRUPT = "corrupt"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    INCONSISTENT_GEOMETRY = "inconsistent_geometry"
    UNSUPPORTED_OUTPUT = "unsupported_output"
    OUT_OF_MEMORY = "out_of_memory"
    WRITE_FAILED = "write_failed"
    INTERNAL = "internal"

    @property
    def is_failure(self) -> bool:
        """Whether something went wrong; else the file is simply no input."""
        return self not in (Reason.NOT_DICOM, Reason.NOT_AN_IMAGE, Reason.TASK_MISMATCH)


class SAM2UNetError(Exception):
    """Base of every error whose message is meant for the person at the keyboard."""


class DataError(SAM2UNetError):
    """Images, masks or data lists that cannot be used as given."""


class TaskError(SAM2UNetError):
    """A task description that is missing, malformed or does not fit."""


class WeightsError(SAM2UNetError):
    """A weights file that cannot be read into the network asked for."""


class MissingWeightsError(WeightsError):
    """Weights that have to be fetched or imported first."""


class ConfigError(SAM2UNetError):
    """A bundle configuration or override that names something which does not exist."""


class MissingExtraError(SAM2UNetError):
    """An optional library that is not installed; the message names the extra."""


class InputError(DataError):
    """One input that cannot be read.

    Args:
        message: what was wrong, what was got, what to do; no patient data, no path.
        reason: for the manifest. It has a default because an error that comes out of another
            process is made again from its message alone.
    """

    def __init__(self, message: str, *, reason: Reason = Reason.CORRUPT) -> None:
        super().__init__(message)
        self.reason = reason


class GeometryError(DataError):
    """Frames whose places in the patient cannot be expressed the way that was asked for."""


class OutOfMemoryError(SAM2UNetError):
    """A frame that does not fit the device's memory."""


class OutputError(SAM2UNetError):
    """A results folder that cannot be written to."""


class LockedError(OutputError):
    """A results folder that another run is writing to, or that holds results of other settings."""


class NetworkError(SAM2UNetError):
    """A DICOM server that cannot be reached, or with which nothing more can be done."""


class RefusedError(NetworkError):
    """One object that a server does not take; others may go through."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a device or on the machine.

    PyTorch says it by a RuntimeError of its own class, or in words alone.
    """
    if isinstance(error, OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, InputError):
        return error.reason is Reason.OUT_OF_MEMORY
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    return "OutOfMemoryError" in type(error).__name__ or any(each in text for each in _NO_MEMORY)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that nothing more can be written to a disk."""
    return isinstance(error, OSError) and error.errno in _FULL_DISK


_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
