"""Runs an iterator ahead of its consumer, in its own thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Never, TypeVar

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
