"""Keep the log records of network libraries away: they hold UIDs, and addresses made of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sam2unet_core.dicom.quiet import quiet

_LIBRARIES = ("pynetdicom", "dicomweb_client", "urllib3", "retrying")


@contextmanager
def silent() -> Iterator[None]:
    """Let no record of these libraries, and no warning of pydicom, get out while inside."""
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    former = [logger.propagate for logger in loggers]
    sink = logging.NullHandler()  # without one, logging would print to stderr
    for logger in loggers:
        logger.addHandler(sink)
        logger.propagate = False
    try:
        with quiet():
            yield
    finally:
        for logger, propagate in zip(loggers, former, strict=True):
            logger.removeHandler(sink)
            logger.propagate = propagate
