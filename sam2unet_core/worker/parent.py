"""Detects the end of another process, on all systems."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

INTERVAL_S = 1.0


def watch(pid: int, ended: Callable[[], None]) -> None:
    """Call `ended` from a thread when the process has ended."""

    def wait() -> None:
        while is_running(pid):
            time.sleep(INTERVAL_S)
        ended()

    threading.Thread(target=wait, daemon=True, name="watch-parent").start()


def ended_within(pid: int, seconds: float) -> bool:
    """Wait for the end of a process; return whether it ended in time."""
    limit = time.monotonic() + seconds
    while is_running(pid):
        if time.monotonic() >= limit:
            return False
        time.sleep(0.05)
    return True


if sys.platform == "win32":  # pragma: no cover - os.kill would end the process there
    import ctypes

    _SYNCHRONIZE, _TIMEOUT, _ACCESS_DENIED = 0x00100000, 0x102, 5

    def is_running(pid: int) -> bool:
        """Whether there is a process of that number."""
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.OpenProcess.restype = ctypes.c_void_p
        handle = kernel.OpenProcess(_SYNCHRONIZE, False, pid)
        if not handle:
            return ctypes.get_last_error() == _ACCESS_DENIED
        try:
            waited: int = kernel.WaitForSingleObject(ctypes.c_void_p(handle), 0)
            return waited == _TIMEOUT
        finally:
            kernel.CloseHandle(ctypes.c_void_p(handle))
else:

    def is_running(pid: int) -> bool:
        """Whether there is a process of that number."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
