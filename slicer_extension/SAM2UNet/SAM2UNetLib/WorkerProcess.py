"""Talks to the worker, the process that holds the network: requests in, events out, never waiting.

No Qt and nothing of Slicer: a thread reads the worker's events into a queue, and whoever owns the
worker polls it, from a timer in Slicer and from a loop in tests. The exchange folder is private to
this user and always removed. A worker that dies leaves no request unanswered.
"""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import protocol
from .BackgroundProcess import cleanEnvironment, endProcessTree
from .Collaborators import Event

LOG_LINES = 2000
GRACE_S = 3.0
"""How long a worker that was told to shut down may take before it is ended."""
LAST_WORDS_S = 1.0
"""How long a worker's death is kept back for its log, which a child of it may hold open."""


class WorkerProcess:
    """A worker and what is asked of it.

    Args:
        command: the command that starts the worker, such as `[python, "-m", "sam2unet_core.cli",
            "worker"]`; the exchange folder and what follows from the other arguments are added.
        exchangeParent: where the exchange folder is made; the system's temporary folder if None.
        allowRoots: the folders below which the worker may read studies.
        environment: all of its variables; those of this process less Slicer's own if None.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        exchangeParent: Path | str | None = None,
        allowRoots: Sequence[Path | str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.command = [str(word) for word in command]
        self.allowRoots = tuple(str(root) for root in allowRoots)
        self.environment = cleanEnvironment(os.environ if environment is None else environment)
        self.exchange: Path | None = None
        self._parent = exchangeParent
        self._process: subprocess.Popen[bytes] | None = None
        self._events: queue.Queue[Event | None] = queue.Queue()
        self._outgoing: queue.Queue[bytes | None] = queue.Queue()
        self._log: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
        self._threads: list[threading.Thread] = []
        self._open: dict[int, str] = {}
        self._kept: list[Event] = []
        self._next = 1
        self._stopping = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the worker; does nothing while it runs.

        Raises:
            OSError: the program is not there, may not run, or no exchange folder can be made.
        """
        if self.isAlive:
            return
        self.stop()
        self._stopping = False
        self._events, self._outgoing, self._open = queue.Queue(), queue.Queue(), {}
        self.exchange = Path(tempfile.mkdtemp(prefix="sam2unet-", dir=self._parent))
        words = [*self.command, "--exchange", str(self.exchange), "--parent", str(os.getpid())]
        for root in self.allowRoots:
            words += ["--allow-root", root]
        group: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
            group = {"creationflags": flags}
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                words, stdin=pipe, stdout=pipe, stderr=pipe, env=self.environment, **group
            )
        except OSError:
            self._removeExchange()
            raise
        self._process = process
        log = threading.Thread(target=self._readLog, args=(process,), daemon=True)
        events = threading.Thread(target=self._readEvents, args=(process, log), daemon=True)
        requests = threading.Thread(target=self._writeRequests, args=(process,), daemon=True)
        self._threads = [events, log, requests]
        for thread in (log, events, requests):
            thread.start()

    @property
    def isAlive(self) -> bool:
        """Whether the worker was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit code; None while the worker runs or before it was started."""
        return self._process.poll() if self._process is not None else None

    @property
    def log(self) -> str:
        """The last lines that the worker wrote for people, for a report of an error."""
        return "\n".join(self._log)

    def request(self, operation: str, **fields: Any) -> int:
        """Send a request and return its number; may be called from any thread.

        The request that a dead worker gets is answered by `worker_died` like any other.

        Raises:
            ProtocolError: the protocol cannot hold the request.
        """
        with self._lock:
            identifier, self._next = self._next, self._next + 1
            line = protocol.encode(protocol.request(identifier, operation, **fields))
            self._open[identifier] = operation
        self._outgoing.put(line)
        return identifier

    def cancel(self, identifier: int) -> int:
        """Ask that a request end as `cancelled`; return the number of the asking."""
        return self.request("cancel", id_to_cancel=identifier)

    def poll(self) -> list[Event]:
        """Return the events that came since the last call. Never waits."""
        events, self._kept = self._kept, []
        while True:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                break
            self._take(event, events)
        if not self.isAlive and self._open and not any(t.is_alive() for t in self._threads[:1]):
            self._take(None, events)
        return events

    def wait(self, identifier: int, *, timeout: float) -> list[Event]:
        """Return all events of a request up to its last: for tests and scripts, not the panel.

        Events of other requests are kept for `poll`.

        Raises:
            TimeoutError: the request did not end in `timeout` seconds.
        """
        limit, mine, others = time.monotonic() + timeout, [], []
        while not (mine and mine[-1]["event"] in protocol.TERMINAL):
            for event in self.poll():
                (mine if event.get("id") == identifier else others).append(event)
            if mine and mine[-1]["event"] in protocol.TERMINAL:
                break
            try:
                event = self._events.get(timeout=min(0.2, max(0.0, limit - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= limit:
                    self._kept = others
                    message = f"the worker did not end request {identifier} in {timeout:g} s"
                    raise TimeoutError(message) from None
                continue
            self._take(event, self._kept)
        self._kept = others + self._kept
        return mine

    def stop(self) -> None:
        """End the worker and its children, remove the exchange folder, answer what is open."""
        process, self._process = self._process, None
        if process is not None:
            self._stopping = True
            self._end(process)
        limit = time.monotonic() + GRACE_S
        for thread in self._threads:
            thread.join(max(0.0, limit - time.monotonic()))
        self._threads = []
        self._removeExchange()
        self._open = {}

    def _take(self, event: Event | None, events: list[Event]) -> None:
        """Note an event; the end of the stream answers everything that is still open."""
        if event is not None:
            if event.get("event") in protocol.TERMINAL:
                self._open.pop(event.get("id"), None)
            events.append(event)
            return
        with self._lock:
            left, self._open = self._open, {}
        for identifier in left:
            events.append(protocol.event(identifier, "failed", **self._death()))

    def _death(self) -> dict[str, str]:
        code = self.returncode
        how = "was stopped" if code is None else f"stopped unexpectedly (code {code})"
        if code in (-9, 137):
            remedy = (
                "it was killed, most likely because memory ran out: segment fewer frames, "
                "or close other programs, and try again"
            )
        else:
            remedy = "try again; if it stops again, copy the log and repair the environment"
        return {"kind": "worker_died", "message": f"the worker {how}", "remedy": remedy}

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            with contextlib.suppress(protocol.ProtocolError):
                self.request("shutdown")
            self._outgoing.put(None)
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                endProcessTree(process)
        else:
            self._outgoing.put(None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)

    def _readEvents(self, process: subprocess.Popen[bytes], log: threading.Thread) -> None:
        events = self._events
        with process.stdout as stream:
            while line := stream.readline(protocol.MAX_LINE + 1):
                try:
                    events.put(protocol.decode(line))
                except protocol.ProtocolError as error:
                    self._log.append(f"line that is no event: {error.message}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)  # the exit code belongs in the message
        log.join(LAST_WORDS_S)  # and its last words in the log, before anyone is told
        events.put(None)

    def _readLog(self, process: subprocess.Popen[bytes]) -> None:
        with process.stderr as stream:
            for line in stream:
                self._log.append(line.decode("utf-8", "replace").rstrip("\r\n")[:2000])

    def _writeRequests(self, process: subprocess.Popen[bytes]) -> None:
        outgoing = self._outgoing
        with contextlib.suppress(OSError), process.stdin as stream:
            while (line := outgoing.get()) is not None:
                stream.write(line)
                stream.flush()

    def _removeExchange(self) -> None:
        folder, self.exchange = self.exchange, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
