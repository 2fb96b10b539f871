"""The protocol's channel over standard input and output, which libraries cannot print to."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from sam2unet_core.protocol import MAX_LINE, ProtocolError, decode, encode

logger = logging.getLogger(__name__)


class Channel:
    """Reads messages and writes events.

    Args:
        incoming: the client's messages.
        outgoing: receives our events; any thread may write to it.
    """

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._lock = threading.Lock()

    @classmethod
    def take_over(cls) -> Channel:
        """Reserve standard input and output for the protocol.

        From now on, all other output to stdout, also from C code, goes to stderr, and stdin is
        empty.
        """
        sys.stdout.flush()
        incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        return cls(incoming, outgoing)

    def messages(self) -> Iterator[dict[str, Any] | ProtocolError]:
        """Yield messages until the stream ends; an invalid line is yielded as its error."""
        for line in self._lines():
            if isinstance(line, ProtocolError):
                yield line
                continue
            try:
                yield decode(line)
            except ProtocolError as error:
                yield error

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one message; if the client is gone, only log it.

        Raises:
            ProtocolError: the message is too long for a line.
        """
        line = encode(message)
        try:
            with self._lock:
                self._outgoing.write(line)
                self._outgoing.flush()
        except (OSError, ValueError):
            logger.warning("an event could not be sent: the client has closed the stream")

    def _lines(self) -> Iterator[bytes | ProtocolError]:
        while line := self._read():
            if len(line) > MAX_LINE:
                while line and not line.endswith(b"\n"):  # skip the rest of the line
                    line = self._read()
                yield ProtocolError(
                    "too_large",
                    f"line of more than {MAX_LINE} bytes",
                    "send arrays through files, and long lists in several requests",
                )
            elif line.strip():
                yield line

    def _read(self) -> bytes:
        try:
            return self._incoming.readline(MAX_LINE + 1)
        except OSError:
            return b""
