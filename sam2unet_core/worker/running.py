"""A running request: sends its events and can be cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sam2unet_core.protocol import event
from sam2unet_core.worker.failures import CancelledError


class RunningRequest:
    """A request that takes time.

    Args:
        identifier: the request's id.
        send: sends an event.
    """

    def __init__(self, identifier: int, send: Callable[[dict[str, Any]], None]) -> None:
        self.identifier = identifier
        self._send = send
        self._stop = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether it was cancelled."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Cancel it, from any thread."""
        self._stop.set()

    def check(self) -> None:
        """Raise CancelledError if it was cancelled."""
        if self._stop.is_set():
            raise CancelledError

    def progress(self, done: int, total: int) -> None:
        """Send the progress, or raise CancelledError."""
        self.check()
        self._send(event(self.identifier, "progress", done=done, total=total))

    def partial(self, frame: int, file: dict[str, Any]) -> None:
        """Send the result of one frame, or raise CancelledError."""
        self.check()
        self._send(event(self.identifier, "partial", frame=frame, file=file))
