"""Stored probabilities: changing the threshold does not need the network."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from sam2unet_core.protocol import ProtocolError
from sam2unet_core.task import Task
from sam2unet_core.worker.exchange import Exchange

MOST = 2
LARGEST_BYTES = 1 << 32
SHARE_OF_DISK = 0.25
"""Of the free space, at most so much for one result."""


@dataclass(frozen=True)
class Kept:
    """The probabilities of one request.

    Attributes:
        handle: its name in requests.
        path: float32 `(N, K, H, W)`, as it stands in `reference`.
        reference: the array.
        task: the task, as it came.
    """

    handle: str
    path: Path
    reference: dict[str, object]
    task: Task


class Results:
    """Keeps the last results.

    Args:
        exchange: where their files lie.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._count = 0

    def room_for(self, size: int) -> bool:
        """Whether so many bytes may be kept; room is made by giving up older results."""
        while len(self._kept) >= MOST:
            self._exchange.release(self._kept.popitem(last=False)[1].path)
        free = shutil.disk_usage(self._exchange.folder).free
        return size <= min(LARGEST_BYTES, SHARE_OF_DISK * free)

    def keep(self, path: Path, reference: dict[str, object], task: Task) -> str:
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
            raise ProtocolError(
                "no_such_result", "that result is not kept any more", "segment again"
            )
        self._kept.move_to_end(handle)
        return self._kept[handle]

    def close(self) -> None:
        """Delete all."""
        while self._kept:
            self._exchange.release(self._kept.popitem()[1].path)
