"""Keep pydicom's warnings out of terminals and logs: they quote what stands in a header."""

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
_former_modes: list[int] = []
_log = logging.getLogger("pydicom")
_users = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and the check of values while any thread is inside.

    pydicom is not imported for it. Where it comes later, the check of values ends with the next
    block that is entered; all that read headers enter one.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def quietly(items: Iterator[_T]) -> Iterator[_T]:
    """Yield from `items`, quiet while each is made and not while it is used."""
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
        if not _former_modes and "pydicom" in sys.modules:
            from pydicom import config  # noqa: PLC0415 - it is there already

            _former_modes.append(config.settings.reading_validation_mode)
            config.settings.reading_validation_mode = config.IGNORE


def _leave() -> None:
    global _users  # noqa: PLW0603
    with _lock:
        _users -= 1
        if _users == 0:
            if _former_modes:
                from pydicom import config  # noqa: PLC0415 - it is there already

                config.settings.reading_validation_mode = _former_modes.pop()
            _log.disabled = False
            _silences.pop().__exit__(None, None, None)
