"""The worker's main loop; a thread listens, so that requests can be cancelled while they run."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sam2unet_core.protocol import ProtocolError, event
from sam2unet_core.worker.channel import Channel
from sam2unet_core.worker.exchange import Exchange
from sam2unet_core.worker.failures import CancelledError, failure
from sam2unet_core.worker.fields import Fields, check_head, request_id
from sam2unet_core.worker.greeting import fits, hello
from sam2unet_core.worker.operations import Operations
from sam2unet_core.worker.parent import ended_within, watch
from sam2unet_core.worker.roots import Roots
from sam2unet_core.worker.running import RunningRequest

logger = logging.getLogger(__name__)
GRACE_S = 5.0
"""Seconds to wait for the running request to stop after the client is gone."""
PARENT_EXIT_S = 2.0
"""Seconds to wait for the parent process to end after its streams have closed."""


def serve(
    *, exchange: Path, allow_roots: Sequence[Path] = (), parent: int | None = None
) -> NoReturn:
    """Answer requests until the client sends `shutdown`, closes the stream or dies; then exit.

    Args:
        exchange: folder for arrays, private to this user; the worker deletes its own files there.
        allow_roots: folders below which requests may read files.
        parent: id of the client's process, for clients whose child processes inherit the stream.
            The worker ends with it and removes the exchange folder, including the client's arrays.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    folder = Exchange(exchange)
    server = Server(Channel.take_over(), Operations(folder, Roots(allow_roots)), folder)
    for name in ("SIGTERM", "SIGINT"):
        with contextlib.suppress(AttributeError, ValueError):
            signal.signal(getattr(signal, name), lambda *_: server.stop())
    if parent is not None:
        watch(parent, server.end)
    server.run()
    if parent is not None and not server.shutdown_requested and ended_within(parent, PARENT_EXIT_S):
        folder.remove()
    logging.shutdown()
    os._exit(0)  # a normal exit would wait for the stream's lock, which the listening thread holds


class Server:
    """Receives requests from a channel; `run` executes long ones one at a time.

    Args:
        channel: the channel to the client.
        operations: executes requests.
        exchange: the exchange folder; its files are deleted at the end.

    Attributes:
        shutdown_requested: whether the client sent `shutdown`.
    """

    def __init__(self, channel: Channel, operations: Operations, exchange: Exchange) -> None:
        self.shutdown_requested = False
        self._channel = channel
        self._operations = operations
        self._exchange = exchange
        self._lock = threading.Lock()
        self._job: RunningRequest | None = None
        self._closing = False
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._ended = threading.Event()

    def run(self) -> None:
        """Execute requests until the end, then delete the files in the exchange folder."""
        threading.Thread(target=self._listen, daemon=True, name="listen").start()
        try:
            while (do := self._work.get()) is not None:
                do()
        finally:
            self._operations.close()
            self._exchange.clean()
            self._ended.set()

    def stop(self) -> None:
        """Cancel the running request and end; takes no lock, so signal handlers may call it."""
        self._closing = True
        job = self._job
        if job is not None:
            job.stop()
        self._work.put(None)

    def end(self) -> None:
        """Stop, from a thread other than `run`'s; exit the process if the request does not stop."""
        self.stop()
        if not self._ended.wait(GRACE_S):
            logger.warning("the running request does not stop: exiting anyway")
            self._exchange.clean()
            os._exit(1)

    def _listen(self) -> None:
        for message in self._channel.messages():
            if isinstance(message, ProtocolError):
                self._send(event(None, "failed", **failure(message)))
                continue
            try:
                self._take(*check_head(message))
            except Exception as error:
                self._send(event(request_id(message), "failed", **failure(error)))
        self.end()

    def _take(self, identifier: int, operation: str, fields: Fields) -> None:
        with self._lock:
            if self._job is not None and self._job.identifier == identifier:
                if operation == "cancel":  # with the request's own id: one event answers both
                    self._job.stop()
                    return
                self._send(
                    event(None, "failed", **failure(_wrong("id: belongs to a running request")))
                )
                return
            if self._closing:
                raise _wrong("the worker is shutting down")
        at_once = {"hello": hello, "fits": fits}
        if operation in at_once:
            self._send(event(identifier, "finished", result=at_once[operation](fields)))
        elif operation == "cancel":
            self._cancel(identifier, fields)
        elif operation == "shutdown":
            fields.end()
            self._shut_down(identifier)
        else:
            self._begin(identifier, operation, fields)

    def _begin(self, identifier: int, operation: str, fields: Fields) -> None:
        job = RunningRequest(identifier, self._channel.send)
        with self._lock:
            if self._job is not None:
                raise ProtocolError(
                    "busy",
                    "another request is running",
                    "wait for it to end, or cancel it",
                )
            self._job = job
        self._work.put(lambda: self._do(job, operation, fields))

    def _cancel(self, identifier: int, fields: Fields) -> None:
        # Without an id, cancel the running request. Unknown fields are ignored.
        wanted = fields.integer("id_to_cancel", None, low=0, high=2**53 - 1)
        with self._lock:
            job = self._job
            found = job is not None and wanted in (None, job.identifier)
            if job is not None and found:
                job.stop()
        self._send(event(identifier, "finished", result={"cancelled": found}))

    def _shut_down(self, identifier: int) -> None:
        with self._lock:
            self._closing = self.shutdown_requested = True
            if self._job is not None:
                self._job.stop()
        self._work.put(lambda: self._send(event(identifier, "finished", result={})))
        self._work.put(None)

    def _do(self, job: RunningRequest, operation: str, fields: Fields) -> None:
        """Execute one request and send its only terminal event."""
        self._exchange.begin_request()
        try:
            job.check()
            result = self._operations.do(operation, fields, job)
            last = event(job.identifier, "finished", result=result)
        except CancelledError:
            last = event(job.identifier, "cancelled")
        except Exception as error:
            told = failure(error, paths=self._operations.paths)
            last = event(job.identifier, "failed", **told)
        with self._lock:  # a later cancel finds no such request
            if job.stopped:
                last = event(job.identifier, "cancelled")
            self._job = None
            if last["event"] != "finished":
                self._exchange.drop_request()
            self._send(last)

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._channel.send(message)
        except ProtocolError as error:
            self._channel.send(event(message["id"], "failed", **failure(error)))


def _wrong(message: str) -> ProtocolError:
    return ProtocolError("bad_request", message)
