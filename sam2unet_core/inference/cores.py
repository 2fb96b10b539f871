"""Computes several frames in parallel, each on its own share of the cores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from sam2unet_core.types import Frame

Found = TypeVar("Found")
Mark = TypeVar("Mark")


@dataclass(frozen=True)
class Computing(Generic[Found]):
    """A frame that is being computed."""

    frame: Frame
    result: Future[Found]


class Cores:
    """A pool of threads that share the machine's cores.

    Args:
        at_once: number of frames computed in parallel.
    """

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self._room = threading.Semaphore(at_once)
        self._all = torch.get_num_threads()
        each, more = divmod(self._all, at_once)
        self._shares = [max(1, each + (i < more)) for i in range(at_once)]
        self._pool = ThreadPoolExecutor(at_once, "network", self._take_share)

    def start(
        self, stream: Iterable[Frame | Mark], compute: Callable[[Frame], Found]
    ) -> Iterator[Computing[Found] | Mark]:
        """Start computing each frame of a stream and yield it; pass everything else through."""
        for item in stream:
            if isinstance(item, Frame):
                yield Computing(item, self._pool.submit(self._with_room, compute, item))
            else:
                yield item

    def retry_alone(self, compute: Callable[[Frame], Found], frame: Frame) -> Found:
        """Compute a frame again, alone; from now on, compute one frame at a time."""
        while self.at_once > 1:
            self._room.acquire()
            self.at_once -= 1
        return self._with_room(compute, frame)

    def close(self) -> None:
        """Stop the threads; frames that have not been started are cancelled."""
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._all)  # new threads would inherit the pool's setting

    def _with_room(self, compute: Callable[[Frame], Found], frame: Frame) -> Found:
        with self._room:
            return compute(frame)

    def _take_share(self) -> None:
        """Make PyTorch use this thread's share of the cores."""
        torch.get_num_threads()  # its first call in a thread adopts the last setting of any thread
        torch.set_num_threads(self._shares.pop())
