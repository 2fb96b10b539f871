"""The way of the data: series, frames, network, probabilities, masks.

    series.frames -> in_background -> segment_frames -> FrameResult

Decoding runs ahead of the network in a thread of its own, by a bounded number of frames.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Never, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from sam2unet_core.errors import OutOfMemoryError
from sam2unet_core.postprocess import class_masks, label_map
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.task import Task
from sam2unet_core.types import Frame, OnError, Series

logger = logging.getLogger(__name__)
T = TypeVar("T")
BATCH_SIZE = 4
"""Frames that go through the network together, all of one series."""
_POLL_S = 0.1


@dataclass(frozen=True)
class FrameResult:
    """What was found in one frame.

    Attributes:
        frame: the frame itself.
        probabilities: `(K, H, W)` float32 in 0 to 1, one channel a class.
        masks: `(K, H, W)` bool; classes may overlap.
        labels: `(H, W)` uint8, 0 background, k the k-th class.
    """

    frame: Frame
    probabilities: NDArray[np.float32]
    masks: NDArray[np.bool_]
    labels: NDArray[np.uint8]


class BatchSize:
    """Number of frames that fit the device: halved where memory runs out, and kept so.

    Args:
        frames: to begin with, 1 or more.
    """

    def __init__(self, frames: int = BATCH_SIZE) -> None:
        self.frames = frames
        self._told = False

    def halve(self) -> None:
        """Take half as many frames from now on, and say so once.

        Raises:
            OutOfMemoryError: it is one frame already.
        """
        if self.frames == 1:
            raise OutOfMemoryError(
                "one frame does not fit the device's memory; use --device cpu or a smaller network"
            )
        self.frames //= 2
        if not self._told:
            self._told = True
            logger.warning("the device ran out of memory: going on with smaller batches")


def segment(
    series: Series,
    segmenter: Segmenter,
    *,
    stride: int = 1,
    batch_size: int = BATCH_SIZE,
    on_error: OnError | None = None,
) -> Iterator[FrameResult]:
    """Segment the frames of a series, in order.

    Args:
        series: what to segment.
        segmenter: its task gives the grey window, the threshold and the smallest areas.
        stride: take every so-manyth frame.
        batch_size: frames that go through the network together.
        on_error: told of each instance that cannot be decoded, and the others go on.

    Raises:
        InputError: a frame cannot be decoded and `on_error` is None.
        OutOfMemoryError: a single frame does not fit the device.
    """
    frames = series.frames(window=segmenter.task.window, stride=stride, on_error=on_error)
    size = BatchSize(batch_size)
    with in_background(frames, limit=2 * batch_size) as decoded:
        yield from segment_frames(decoded, segmenter, batch_size=size)


def segment_frames(
    frames: Iterable[Frame], segmenter: Segmenter, *, batch_size: BatchSize
) -> Iterator[FrameResult]:
    """Segment frames that are decoded already; those of one size in a row form batches.

    Raises:
        OutOfMemoryError: a single frame does not fit the device.
    """
    for batch in _batches(frames, batch_size):
        found = _probabilities(batch, segmenter, batch_size)
        for frame, probabilities in zip(batch, found, strict=True):
            yield to_result(frame, probabilities, segmenter.task)


def to_result(frame: Frame, probabilities: NDArray[np.float32], task: Task) -> FrameResult:
    """Return masks and labels beside the probabilities `(K, H, W)` of a frame."""
    masks = class_masks(probabilities, task)
    one_class = len(masks) == 1
    labels = masks[0].astype(np.uint8) if one_class else label_map(probabilities, task)
    return FrameResult(frame, probabilities, masks, labels)


class in_background(Generic[T]):  # noqa: N801 - read as a function at the call
    """Iterate in a thread of its own, at most `limit` items ahead of whoever takes them.

    A context manager: leaving it stops the thread. What the iterator raises is raised here.

    Args:
        items: what to iterate over.
        limit: items that may wait.
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
    """Says that the items are used up."""


def _give(item: T) -> Callable[[], T]:
    return lambda: item


def _raise(error: BaseException) -> Callable[[], Never]:
    def give() -> Never:
        raise error

    return give


def _batches(frames: Iterable[Frame], batch_size: BatchSize) -> Iterator[list[Frame]]:
    batch: list[Frame] = []
    for frame in frames:
        if batch and frame.pixels.shape != batch[0].pixels.shape:
            yield batch
            batch = []
        batch.append(frame)
        if len(batch) >= batch_size.frames:
            yield batch
            batch = []
    if batch:
        yield batch


def _probabilities(
    batch: list[Frame], segmenter: Segmenter, batch_size: BatchSize
) -> Iterator[NDArray[np.float32]]:
    """Yield probabilities `(K, H, W)` of each frame; smaller batches where memory runs out."""
    start = 0
    while start < len(batch):
        part = batch[start : start + batch_size.frames]
        segmenter.runtime.batch_size = batch_size.frames
        try:
            found = segmenter.probabilities(_stacked(part))
        except (RuntimeError, MemoryError) as error:
            if not _memory_ran_out(error):
                raise
            _free(segmenter)
            if batch_size.frames == 1 and _mirrors_along(segmenter):
                segmenter.runtime.mirrors_along = False
            else:
                batch_size.halve()
            continue
        yield from found
        start += len(part)


def _stacked(frames: list[Frame]) -> NDArray[np.uint8]:
    """Return the pixels `(N, H, W, 3)`; those of one frame are not copied."""
    return np.stack([f.pixels for f in frames]) if len(frames) > 1 else frames[0].pixels[None]


def _memory_ran_out(error: Exception) -> bool:
    """Whether an error says so; PyTorch's allocator on a CPU does it in words alone."""
    named = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return named or "DefaultCPUAllocator" in str(error)


def _mirrors_along(segmenter: Segmenter) -> bool:
    """Whether the network gets two images of a frame at once."""
    return segmenter.task.flip_average and segmenter.runtime.mirrors_along


def _free(segmenter: Segmenter) -> None:
    if segmenter.runtime.device.type == "cuda":
        torch.cuda.empty_cache()
