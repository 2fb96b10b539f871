"""Work at the same time: iterators that run ahead in the background, and a core for each frame."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Never, TypeVar

import torch

from sam2unet_core.types import Frame

T = TypeVar("T")
_POLL_S = 0.1


class in_background(Generic[T]):  # noqa: N801 - read as a function at the call
    """Iterate in a separate thread, at most `limit` items ahead of the consumer.

    A context manager; leaving it stops the thread. Exceptions of the iterator are raised in the
    consumer.

    Args:
        items: what to iterate over.
        limit: items that can wait.
    """

    def __init__(self, items: Iterable[T], *, limit: int) -> None:
        self._items = items
        self._queue: queue.Queue[Callable[[], T]] = queue.Queue(maxsize=max(1, limit))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, daemon=True)

    def __enter__(self) -> Iterator[T]:
        """Start the thread and return the iterator."""
        self._thread.start()
        return self._take()

    def __exit__(self, *_: object) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        self._thread.join()

    def _take(self) -> Iterator[T]:
        while True:
            give = self._queue.get()
            try:
                item = give()
            except _EndError:
                return
            yield item

    def _fill(self) -> None:
        iterator = iter(self._items)
        try:
            for item in iterator:
                if not self._put(_give(item)):
                    break
            else:
                self._put(_raise(_EndError()))
        except BaseException as error:
            self._put(_raise(error))
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def _put(self, give: Callable[[], T]) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(give, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False


class _EndError(Exception):
    """There are no more items."""


def _give(item: T) -> Callable[[], T]:
    return lambda: item


def _raise(error: BaseException) -> Callable[[], Never]:
    def give() -> Never:
        raise error

    return give


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
