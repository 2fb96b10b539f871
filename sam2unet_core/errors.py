"""Errors a user can act on: each message says what was wrong, what was got and what to do."""

import errno
from enum import StrEnum


class Reason(StrEnum):
    """Why an input has no result or an incomplete one; a closed list in the manifest."""

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
        """Whether something went wrong; False if the file is just not an input."""
        return self not in (Reason.NOT_DICOM, Reason.NOT_AN_IMAGE, Reason.TASK_MISMATCH)


class SAM2UNetError(Exception):
    """Base of every error whose message is meant for the person at the keyboard."""


class DataError(SAM2UNetError):
    """Images, masks or data lists that cannot be used as given."""


class TaskError(SAM2UNetError):
    """A task description that is missing, malformed or does not match."""


class WeightsError(SAM2UNetError):
    """A weights file that cannot be loaded into the network."""


class MissingWeightsError(WeightsError):
    """Weights that have to be fetched or imported first."""


class ConfigError(SAM2UNetError):
    """A configuration or option that names something which does not exist."""


class MissingExtraError(SAM2UNetError):
    """An optional library that is not installed; the message names the extra."""


class InputError(DataError):
    """One input that cannot be read.

    Args:
        message: what was wrong, what was got, what to do; no patient data, no path.
        reason: for the manifest. The default is needed for unpickling from another process, which
            passes the message only.
    """

    def __init__(self, message: str, *, reason: Reason = Reason.CORRUPT) -> None:
        super().__init__(message)
        self.reason = reason


class GeometryError(DataError):
    """Frame positions that the requested format or operation cannot express."""


class OutOfMemoryError(SAM2UNetError):
    """A frame that does not fit the device's memory."""


class OutputError(SAM2UNetError):
    """A results folder that cannot be written to."""


class LockedError(OutputError):
    """A results folder in use by another run, or with results of other settings."""


class NetworkError(SAM2UNetError):
    """A DICOM server that cannot be reached or no longer answers."""


class RefusedError(NetworkError):
    """One object that a server refuses; others may be accepted."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the machine or a device is out of memory.

    PyTorch raises its own subclass of RuntimeError, or a plain one with a message.
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
    return "OutOfMemoryError" in type(error).__name__ or any(
        each in text for each in _OUT_OF_MEMORY
    )


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means that a disk is full or read-only."""
    return isinstance(error, OSError) and error.errno in _FULL_DISK


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
