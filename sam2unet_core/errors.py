"""Errors a user can act on: each message says what was wrong, what was got and what to do."""


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
        reason: one of the manifest's closed list of reasons. It has a default because an error
            that comes out of another process is made again from its message alone.
    """

    def __init__(self, message: str, *, reason: str = "corrupt") -> None:
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
