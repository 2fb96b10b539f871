"""Decoding and network as two stages that run ahead of the writing, each in its own thread."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from sam2unet_core.batch.manifest import Line
from sam2unet_core.batch.naming import Naming, skipped_path
from sam2unet_core.batch.settings import Settings
from sam2unet_core.batch.sources import Row, skipped_row, unit_rows
from sam2unet_core.batch.units import Unit, accepted, scrub
from sam2unet_core.errors import InputError, OutOfMemoryError, SAM2UNetError
from sam2unet_core.pipeline import BatchSize, FrameResult, segment_frames
from sam2unet_core.runtimes import Runtime
from sam2unet_core.runtimes.torch_runtime import TorchRuntime
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.types import Frame, Series, Skipped

Item = Series | Skipped
NOT_INPUTS = frozenset({"not_dicom", "not_an_image", "task_mismatch"})


@dataclass(frozen=True)
class Problem:
    """Why a unit could not be finished.

    Attributes:
        reason: of the manifest's list.
        message: for people, without names.
        detail: a traceback, for `private/`; empty for what is expected.
    """

    reason: str
    message: str
    detail: str = ""


@dataclass(frozen=True)
class Passed:
    """Inputs with nothing to segment: no images, refused, unreadable, or done before.

    Attributes:
        lines: what the manifest says of them.
        rows: what `private/sources.csv` says of them.
        frames: how many frames were done before.
    """

    lines: tuple[Line, ...]
    rows: tuple[Row, ...] = ()
    frames: int = 0


@dataclass(frozen=True)
class Begin:
    """The frames of this unit follow."""

    unit: Unit
    key: str


@dataclass(frozen=True)
class End:
    """There were no more frames of the unit.

    Attributes:
        problem: what stopped it, or None.
        decode_s, network_s: seconds spent.
    """

    problem: Problem | None = None
    decode_s: float = 0.0
    network_s: float = 0.0


Decoded = Passed | Begin | Frame | End
Segmented = Passed | Begin | FrameResult | End


@dataclass
class Decoder:
    """The first stage: what there is to do, and its frames.

    Args:
        items: the inputs.
        segmenter: its task says which sources it accepts, and the grey window.
        settings: of the run.
        naming: gives ids and names.
        key_of: returns the key of a unit.
        is_done: whether a unit with this key needs no doing; returns its lines if so.
    """

    items: Iterable[Item]
    segmenter: Segmenter
    settings: Settings
    naming: Naming
    key_of: Callable[[Unit], str]
    done_lines: Callable[[Unit, str], tuple[Line, ...] | None]

    def events(self) -> Iterator[Decoded]:
        """Yield the inputs in order; each unit as `Begin`, its frames and `End`."""
        for item in self.items:
            if isinstance(item, Skipped):
                identity = self._name(item)  # in every shard, so that all agree on names
                if self._mine(skipped_path(item)):
                    yield self._skipped(item, identity)
            else:
                yield from self._series(item)

    def _mine(self, name: str) -> bool:
        return self.settings.shard is None or self.settings.shard.holds(name)

    def _name(self, item: Skipped) -> str:
        relative = skipped_path(item)
        return self.naming.instance_id(relative, item.path, content=lambda: {item.sha256})

    def _skipped(self, item: Skipped, identity: str) -> Passed:
        line = Line(
            id=identity,
            source_sha256=item.sha256,
            kind="other",
            study=None,
            series=None,
            status="skipped" if item.reason in NOT_INPUTS else "failed",
            reason=item.reason,
            message=scrub(item.message, [item.path]),
        )
        return Passed((line,), (skipped_row(item, identity, skipped_path(item)),))

    def _series(self, series: Series) -> Iterator[Decoded]:
        unit = Unit.of(series, self.naming)
        if not self._mine(unit.relatives[0]):
            return
        try:
            key = self.key_of(unit)
        except OSError as error:
            yield self._unreadable(unit, error)
            return
        why = accepted(series, self.segmenter.task)
        if why and not self.settings.force_task:
            yield self._refused(unit, key, why)
            return
        lines = None if self.settings.redo else self.done_lines(unit, key)
        if lines is not None:
            yield Passed(lines, frames=sum(line.frames for line in lines))
            return
        yield Begin(unit, key)
        yield from self._frames(unit)

    def _frames(self, unit: Unit) -> Iterator[Decoded]:
        window, stride = self.segmenter.task.window, self.settings.stride
        spent, problem = 0.0, None
        try:
            frames = unit.series.frames(window=window, stride=stride, on_error=unit.problem)
            while True:
                started = time.perf_counter()
                frame = next(frames, None)
                spent += time.perf_counter() - started
                if frame is None:
                    break
                yield frame
        except Exception as error:
            problem = problem_of(error, unit)
        yield End(problem, decode_s=spent)

    def _refused(self, unit: Unit, key: str, why: str) -> Passed:
        lines = (
            replace(
                unit.line(index, key=key, status="skipped"), reason="task_mismatch", message=why
            )
            for index in range(len(unit.ids))
        )
        return Passed(tuple(lines), tuple(unit_rows(unit)))

    def _unreadable(self, unit: Unit, error: OSError) -> Passed:
        lines = (
            Line(
                id=identity,
                source_sha256=None,
                kind=unit.series.kind,
                study=unit.study,
                series=unit.series_name,
                status="failed",
                reason="corrupt",
                message=f"a file of the series cannot be read: {error.strerror or 'no reason'}",
            )
            for identity in unit.ids
        )
        return Passed(tuple(lines), tuple(unit_rows(unit)))


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
    """The second stage: frames to results.

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
        self._at_once = self._fitting = at_once
        self._room = threading.Semaphore(at_once)
        self._cores = torch.get_num_threads()

    def begin(self, decoded: Iterator[Decoded]) -> Iterator[Decoded | Computing]:
        """Yield the decoder's events; where several frames are at once, those are being computed.

        How far ahead is up to whoever takes the events.
        """
        if self._at_once == 1:
            yield from decoded
            return
        each, more = divmod(self._cores, self._at_once)
        shares = [max(1, each + (i < more)) for i in range(self._at_once)]
        try:
            with ThreadPoolExecutor(
                self._at_once, "network", lambda: torch.set_num_threads(shares.pop())
            ) as pool:
                try:
                    for event in decoded:
                        if isinstance(event, Frame):
                            yield Computing(event, pool.submit(self._compute, event))
                        else:
                            yield event
                except GeneratorExit:  # nobody waits for the others any more
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        finally:
            torch.set_num_threads(self._cores)  # threads to come would have those of the pool

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
        if self._at_once > 1:
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


def problem_of(error: Exception, unit: Unit) -> Problem:
    """Return what the manifest says of an error; unexpected ones carry their traceback."""
    paths = [instance.path for instance in unit.series.instances]
    if isinstance(error, InputError):
        return Problem(error.reason, scrub(str(error), paths))
    if isinstance(error, OutOfMemoryError | MemoryError):
        return Problem("out_of_memory", str(error) or "the memory does not suffice")
    if isinstance(error, SAM2UNetError):
        return Problem("internal", scrub(str(error), paths))
    if isinstance(error, OSError):
        return Problem("corrupt", f"cannot be read: {error.strerror or type(error).__name__}")
    detail = "".join(traceback.format_exception(error))
    message = f"unexpected {type(error).__name__}; private/errors.log has the details"
    return Problem("internal", message, detail)
