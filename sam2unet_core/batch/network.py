"""The second stage of a batch run: the network, on frames together or on several at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

import torch

from sam2unet_core.batch.stages import Begin, Decoded, End, Passed, Segmented, problem_of
from sam2unet_core.batch.units import Unit
from sam2unet_core.errors import OutOfMemoryError
from sam2unet_core.pipeline import BatchSize, FrameResult, segment_frames
from sam2unet_core.runtimes import Runtime
from sam2unet_core.runtimes.torch_runtime import TorchRuntime
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.types import Frame


def frames_at_once(runtime: Runtime, batch_size: int) -> int:
    """Return how many frames are best computed at once, each on cores of its own.

    Cores share the work of one frame badly: on two of them, two frames take a third less time at
    once than one after the other. On other devices frames go as a batch, and other libraries than
    PyTorch take one call at a time.
    """
    if not isinstance(runtime, TorchRuntime) or runtime.device.type != "cpu":
        return 1
    return max(1, min(batch_size, torch.get_num_threads()))


@dataclass(frozen=True)
class Computing:
    """A frame whose result, and the seconds that it took, will come."""

    frame: Frame
    result: Future[tuple[FrameResult, float]]


class Network:
    """The second stage: frames to results. A context manager.

    Args:
        segmenter: segments.
        batch_size: frames that go together; shrinks where memory runs out.
        at_once: frames that are computed at once, in threads, from `begin` on; they do not go
            together then.
    """

    def __init__(
        self, segmenter: Segmenter, batch_size: BatchSize | None = None, at_once: int = 1
    ) -> None:
        self._segmenter = segmenter
        self._batch_size = batch_size or BatchSize()
        self._fitting = at_once
        self._room = threading.Semaphore(at_once)
        self._cores = torch.get_num_threads()
        each, more = divmod(self._cores, at_once)
        self._shares = [max(1, each + (i < more)) for i in range(at_once)]
        self._pool: ThreadPoolExecutor | None = None
        if at_once > 1:
            self._pool = ThreadPoolExecutor(at_once, "network", self._take_cores)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the threads; frames that were not begun are left."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._cores)  # threads to come would have those of the pool

    def _take_cores(self) -> None:
        """Let PyTorch compute on this thread's share of the cores."""
        torch.get_num_threads()  # a thread's first call takes over what was set last in any other
        torch.set_num_threads(self._shares.pop())

    def begin(self, decoded: Iterator[Decoded]) -> Iterator[Decoded | Computing]:
        """Yield the decoder's events; where several frames are at once, those are being computed.

        How far ahead is up to whoever takes the events.
        """
        for event in decoded:
            if self._pool is not None and isinstance(event, Frame):
                yield Computing(event, self._pool.submit(self._compute, event))
            else:
                yield event

    def events(self, begun: Iterator[Decoded | Computing]) -> Iterator[Segmented]:
        """Yield what `begin` yields, with results in place of frames."""
        for event in begun:
            if isinstance(event, Begin):
                yield event
                yield from self._unit(event.unit, begun)
            elif isinstance(event, Passed):
                yield event

    def _unit(self, unit: Unit, begun: Iterator[Decoded | Computing]) -> Iterator[Segmented]:
        frames = _UntilEnd(begun)
        problem = None
        seconds = 0.0
        try:
            for result, spent in self._results(frames):
                seconds += spent
                yield result
        except Exception as error:
            problem = problem_of(error, unit)
        end = frames.end()
        yield replace(end, problem=end.problem or problem, network_s=seconds)

    def _results(self, frames: _UntilEnd) -> Iterator[tuple[FrameResult, float]]:
        """Yield results, each with the seconds that it took."""
        if self._pool is not None:
            yield from map(self._awaited, frames.computing())
            return
        results = segment_frames(frames, self._segmenter, batch_size=self._batch_size)
        while True:
            started, waited = time.perf_counter(), frames.waited_s
            result = next(results, None)
            if result is None:
                return
            yield result, time.perf_counter() - started - (frames.waited_s - waited)

    def _awaited(self, computing: Computing) -> tuple[FrameResult, float]:
        try:
            return computing.result.result()
        except OutOfMemoryError:
            # Frames beside it may have held the memory: once more, and one at a time from now on.
            while self._fitting > 1:
                self._room.acquire()
                self._fitting -= 1
            return self._compute(computing.frame)

    def _compute(self, frame: Frame) -> tuple[FrameResult, float]:
        with self._room:
            started = time.perf_counter()
            (result,) = segment_frames([frame], self._segmenter, batch_size=BatchSize(1))
            return result, time.perf_counter() - started


class _UntilEnd:
    """Iterates over the frames of one unit and remembers what ended them."""

    def __init__(self, begun: Iterator[Decoded | Computing]) -> None:
        self._begun = begun
        self._end: End | None = None
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[Frame]:
        return (event for event in self._events() if isinstance(event, Frame))

    def computing(self) -> Iterator[Computing]:
        """Iterate over frames that are being computed."""
        return (event for event in self._events() if isinstance(event, Computing))

    def _events(self) -> Iterator[Frame | Computing]:
        while self._end is None:
            started = time.perf_counter()
            event = next(self._begun)
            self.waited_s += time.perf_counter() - started
            if isinstance(event, End):
                self._end = event
            elif isinstance(event, Frame | Computing):
                yield event

    def end(self) -> End:
        """Return the end; frames that are left are dropped."""
        for event in self._events():
            if isinstance(event, Computing):
                event.result.cancel()
        return self._end or End()
