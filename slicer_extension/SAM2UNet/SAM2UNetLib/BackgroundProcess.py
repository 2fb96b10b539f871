"""Runs a command next to Slicer: its lines arrive through a queue, and it ends with its children.

Standard library only. Whoever owns one polls it, from a timer in Slicer and from a loop in tests.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

END_OF_SLICER = (
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONNOUSERSITE",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "QT_PLUGIN_PATH",
    "SSL_CERT_FILE",
)
"""Variables that Slicer's launcher sets for its own Python, and no other one may see."""


def cleanEnvironment(start: Mapping[str, str], **more: str) -> dict[str, str]:
    """Return the variables of `start` less Slicer's own, with UTF-8 for Python, and `more`."""
    kept = {name: value for name, value in start.items() if name not in END_OF_SLICER}
    return {**kept, "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", **more}


class BackgroundProcess:
    """A command that runs in the background; its output is text in UTF-8.

    Args:
        command: program and arguments.
        environment: all its variables; those of this process, cleaned, by default.
        folder: where it runs.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.command = [str(word) for word in command]
        self.environment = dict(environment or cleanEnvironment(os.environ))
        self.folder = folder
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._process: subprocess.Popen[str] | None = None
        self._held: list[str | None] = []
        self._ended = False

    def start(self) -> None:
        """Start it.

        Raises:
            OSError: the program is not there or may not run.
        """
        group = {"start_new_session": True}
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
            group = {"creationflags": flags}
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=self.environment,
            cwd=self.folder,
            **group,
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def poll(self) -> list[str]:
        """Return the lines that came since the last call. Never waits."""
        lines: list[str] = []
        while self._held or not self._lines.empty():
            line = self._held.pop() if self._held else self._lines.get()
            if line is None:
                self._ended = True
                break
            lines.append(line)
        return lines

    @property
    def returncode(self) -> int | None:
        """Exit code once it has ended and all its lines were polled; None until then."""
        return self._process.poll() if self._process and self._ended else None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended, or lines are left to poll."""
        return self._process is not None and self.returncode is None

    def stop(self, timeout: float = 5.0) -> None:
        """End it and its children, at once; does nothing if it has ended."""
        if self._process is None or self._process.poll() is not None:
            return
        endProcessTree(self._process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)

    def wait(self, timeout: float) -> None:
        """Wait until there is something to poll: for tests and scripts, not for the panel.

        Raises:
            TimeoutError: nothing came for `timeout` seconds.
        """
        if self._held or self._ended:
            return
        try:
            self._held.append(self._lines.get(timeout=timeout))
        except queue.Empty as error:
            raise TimeoutError(f"{self.command[0]} said nothing for {timeout:g} s") from error

    def _read(self, process: subprocess.Popen[str]) -> None:
        if process.stdout is not None:
            with process.stdout:
                for line in process.stdout:
                    self._lines.put(line.rstrip("\r\n"))
        process.wait()
        self._lines.put(None)


def endProcessTree(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """End a process that was started in a group of its own, and all its children."""
    if sys.platform == "win32":
        subprocess.run(
            ["taskkill", "/T", "/F", "/PID", str(process.pid)],
            capture_output=True,
            check=False,
            creationflags=subprocess.CREATE_NO_WINDOW,
        )
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
