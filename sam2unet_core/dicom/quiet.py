"""Silence pydicom's warnings, which quote header values."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

_T = TypeVar("_T")
_lock = threading.Lock()
_silences: list[warnings.catch_warnings[None]] = []
_previous_modes: list[int] = []
_log = logging.getLogger("pydicom")
_users = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and pydicom's validation while any thread is inside.

    pydicom is not imported here. If it is imported later, the next block that is entered turns off
    its validation; all code that reads headers enters one.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def quietly(items: Iterator[_T]) -> Iterator[_T]:
    """Yield from `items`, quiet while an item is produced but not while it is used."""
    end = object()
    while True:
        with quiet():
            item = next(items, end)
        if item is end:
            return
        yield item  # type: ignore[misc]


def _enter() -> None:
    global _users  # noqa: PLW0603 - warning filters belong to the process
    with _lock:
        _users += 1
        if _users == 1:
            silence = warnings.catch_warnings()
            silence.__enter__()
            _silences.append(silence)
            warnings.simplefilter("ignore")
            _log.disabled = True
        if not _previous_modes and "pydicom" in sys.modules:
            from pydicom import config  # noqa: PLC0415 - already imported

            _previous_modes.append(config.settings.reading_validation_mode)
            config.settings.reading_validation_mode = config.IGNORE


def _leave() -> None:
    global _users  # noqa: PLW0603
    with _lock:
        _users -= 1
        if _users == 0:
            if _previous_modes:
                from pydicom import config  # noqa: PLC0415 - already imported

                config.settings.reading_validation_mode = _previous_modes.pop()
            _log.disabled = False
            _silences.pop().__exit__(None, None, None)
