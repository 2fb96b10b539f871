"""Stored probabilities, so that `rethreshold` does not need the network."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam2unet_core.protocol import ProtocolError
from sam2unet_core.task import Task
from sam2unet_core.worker.exchange import Exchange

MOST = 2
LARGEST_BYTES = 1 << 32
SHARE_OF_DISK = 0.25
"""One result may use at most this fraction of the free space."""


@dataclass(frozen=True)
class Kept:
    """The probabilities of one request.

    Attributes:
        handle: its name in requests.
        path: the file with float32 `(N, K, H, W)`.
        reference: the array's reference.
        task: the task, without adjustments.
    """

    handle: str
    path: Path
    reference: dict[str, Any]
    task: Task

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Frames, classes, rows and columns."""
        count, classes, rows, columns = self.reference["shape"]
        return (count, classes, rows, columns)


class Results:
    """Keeps the most recent results.

    Args:
        exchange: the folder of their files.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._count = 0

    def room_for(self, size: int) -> bool:
        """Delete old results; return whether `size` bytes may be kept."""
        while len(self._kept) >= MOST:
            self._exchange.release(self._kept.popitem(last=False)[1].path)
        free = shutil.disk_usage(self._exchange.folder).free
        return size <= min(LARGEST_BYTES, SHARE_OF_DISK * free)

    def keep(self, path: Path, reference: dict[str, Any], task: Task) -> str:
        """Keep a file of probabilities and return its handle."""
        self._count += 1
        kept = Kept(f"r{self._count}", path, reference, task)
        self._kept[kept.handle] = kept
        return kept.handle

    def get(self, handle: str) -> Kept:
        """Return a result.

        Raises:
            ProtocolError: `no_such_result`.
        """
        if handle not in self._kept:
            raise ProtocolError("no_such_result", "the result is no longer stored", "segment again")
        self._kept.move_to_end(handle)
        return self._kept[handle]

    def close(self) -> None:
        """Delete all results."""
        while self._kept:
            self._exchange.release(self._kept.popitem()[1].path)
