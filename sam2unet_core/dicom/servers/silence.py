"""Silence the logs of network libraries, which contain UIDs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sam2unet_core.dicom.files import quiet

_LIBRARIES = ("pynetdicom", "dicomweb_client", "urllib3", "retrying")


@contextmanager
def silent() -> Iterator[None]:
    """Silence the logs of these libraries and the warnings of pydicom."""
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    previous = [logger.propagate for logger in loggers]
    sink = logging.NullHandler()  # without a handler, logging prints to stderr
    for logger in loggers:
        logger.addHandler(sink)
        logger.propagate = False
    try:
        with quiet():
            yield
    finally:
        for logger, propagate in zip(loggers, previous, strict=True):
            logger.removeHandler(sink)
            logger.propagate = propagate
