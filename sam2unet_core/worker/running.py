"""A running request: sends its events and knows whether it has been cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sam2unet_core.protocol import event
from sam2unet_core.worker.failures import CancelledError


class RunningRequest:
    """A request that takes time.

    Args:
        identifier: its number.
        send: sends an event.
    """

    def __init__(self, identifier: int, send: Callable[[dict[str, Any]], None]) -> None:
        self.identifier = identifier
        self._send = send
        self._stop = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether it is to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask it to stop, from any thread."""
        self._stop.set()

    def check(self) -> None:
        """Go on, or raise CancelledError where the job is to stop."""
        if self._stop.is_set():
            raise CancelledError

    def progress(self, done: int, total: int) -> None:
        """Tell how far it is; a job that is to stop does so here."""
        self.check()
        self._send(event(self.identifier, "progress", done=done, total=total))

    def partial(self, frame: int, file: dict[str, Any]) -> None:
        """Give the result of one frame; a job that is to stop does so here."""
        self.check()
        self._send(event(self.identifier, "partial", frame=frame, file=file))
