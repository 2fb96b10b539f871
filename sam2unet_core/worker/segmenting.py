"""`segment` and `rethreshold`: convert frames to masks and send each when it is ready."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.inference.engine import Engine
from sam2unet_core.inference.model import Model
from sam2unet_core.media.planes import source_series
from sam2unet_core.protocol import ProtocolError
from sam2unet_core.task import Task
from sam2unet_core.types import Frame, Rejection, rejection_reason
from sam2unet_core.worker.arrays import ArrayInput
from sam2unet_core.worker.exchange import ArrayWriter, Exchange, read_items
from sam2unet_core.worker.fields import MAX_FRAMES, PLANES, Adjustment, Fields
from sam2unet_core.worker.mask_writer import MaskWriter
from sam2unet_core.worker.masks import adjusted, masks_of
from sam2unet_core.worker.models import describe
from sam2unet_core.worker.results import Kept, Results
from sam2unet_core.worker.running import RunningRequest
from sam2unet_core.worker.studies import Studies, in_plane
from sam2unet_core.worker.warned import WarningLog


@dataclass(frozen=True)
class PathInput:
    """A series to segment.

    Attributes:
        path: file or folder.
        series: index of the series at that path.
        frames: which frames; None for all.
        plane: reformat it to this plane first; None for the stored frames.
        force: whether to segment it even if the task does not accept it.
    """

    path: str
    series: int
    frames: list[int] | None
    plane: str | None
    force: bool


@dataclass(frozen=True)
class SegmentRequest:
    """The request `segment`.

    Attributes:
        given: the input.
        adjustment: how probabilities become masks.
        probabilities: whether to return the probabilities, too.
        sparse: whether to return only the masks of frames with findings, packed.
    """

    given: ArrayInput | PathInput
    adjustment: Adjustment
    probabilities: bool
    sparse: bool

    @classmethod
    def take(cls, fields: Fields, folder: Path) -> SegmentRequest:
        """Parse the fields of `segment`.

        Raises:
            ProtocolError: a field is invalid.
        """
        inner = fields.inner("input")
        if inner is None:
            raise ProtocolError("bad_request", "input: expected an array or a path")
        plane, force = fields.choice("plane", PLANES, None), fields.flag("force_task")
        adjustment, wanted = Adjustment.take(fields), fields.flag("probabilities")
        sparse = fields.flag("sparse")
        fields.end()
        path = inner.text("path")
        if path is None:
            if plane is not None:
                raise ProtocolError("bad_request", "plane: only for inputs given by path")
            return cls(ArrayInput.take(inner, folder, force=force), adjustment, wanted, sparse)
        series = inner.integer("series", 0, low=0, high=MAX_FRAMES) or 0
        given = PathInput(path, series, inner.frames(), plane, force)
        inner.end()
        return cls(given, adjustment, wanted, sparse)


class _Timer:
    """Seconds spent, by stage."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.decode_s = 0.0
        self.network_s = 0.0

    def decoding(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Yield frames and measure the decoding time."""
        while True:
            before = time.perf_counter()
            frame = next(frames, None)
            self.decode_s += time.perf_counter() - before
            if frame is None:
                return
            yield frame

    def ms(self) -> dict[str, float]:
        """Return the times in milliseconds."""
        seconds = {
            "decode": self.decode_s,
            "network": self.network_s,
            "total": time.perf_counter() - self._started,
        }
        return {name: round(1000 * value, 2) for name, value in seconds.items()}


def segment(
    request: SegmentRequest,
    job: RunningRequest,
    *,
    model: Model,
    studies: Studies,
    exchange: Exchange,
    results: Results,
) -> dict[str, Any]:
    """Segment frames and return the result of `finished`.

    Raises:
        ProtocolError: `task_mismatch`, or the request does not fit the series.
        InputError: a frame cannot be decoded.
        OutOfMemoryError, MemoryError: a single frame does not fit into memory.
        CancelledError: the request was cancelled.
    """
    timer = _Timer()
    opened = _open(request.given, job, task=model.task, studies=studies)
    count, warnings = opened.count, opened.warnings
    task = adjusted(model.task, request.adjustment)
    shape = (task.num_classes, *opened.shape)
    writer = _Writer(request, exchange, results, count=count, shape=shape)
    done = 0
    with (
        writer,
        Engine.for_latency(model) as engine,
        closing(engine.results(timer.decoding(opened.frames))) as found,
    ):
        for result in found:
            masks = masks_of(result.probabilities, task, request.adjustment)
            writer.add(masks, result.probabilities)
            timer.network_s += result.seconds
            if not request.sparse:
                job.partial(done, exchange.write(masks))
            done += 1
            job.progress(done, count)
        if done < count:
            raise ProtocolError("unreadable", f"{done} of {count} frames could be read")
    return {
        **writer.close(model.task),
        **{k: v for k, v in describe(model).items() if k != "task"},
        "task": model.task.name,
        "threshold": task.threshold,
        "warnings": warnings.to_list(),
        "ms": timer.ms(),
    }


def rethreshold(
    kept: Kept,
    adjustment: Adjustment,
    job: RunningRequest,
    *,
    frames: list[int] | None,
    sparse: bool,
    exchange: Exchange,
) -> dict[str, Any]:
    """Make masks of stored probabilities and return the result of `finished`.

    Raises:
        ProtocolError: `bad_request`: the result has no such frame.
        CancelledError: the request was cancelled.
    """
    timer, task = _Timer(), adjusted(kept.task, adjustment)
    count, *shape = kept.shape
    if frames is not None and frames[-1] >= count:
        raise ProtocolError("bad_request", f"frames: the result has only {count} frames")
    chosen = range(count) if frames is None else frames
    with MaskWriter(exchange, (shape[0], shape[1], shape[2]), sparse=sparse) as writer:
        found = read_items(exchange.folder, kept.reference, chosen=frames)
        for frame, probabilities in zip(chosen, found, strict=True):
            job.check()
            writer.add(frame, masks_of(probabilities, task, adjustment))
    return {
        **writer.result(),
        "result": kept.handle,
        "frames": len(chosen),
        "task": kept.task.name,
        "threshold": task.threshold,
        "ms": timer.ms(),
    }


class _Writer:
    """Writes masks and, if requested or kept, probabilities."""

    def __init__(
        self,
        request: SegmentRequest,
        exchange: Exchange,
        results: Results,
        *,
        count: int,
        shape: tuple[int, int, int],
    ) -> None:
        self._exchange = exchange
        self._results = results
        self._stack = ExitStack()
        size = 4 * count * math.prod(shape)
        self._held: Path | None = exchange.hold() if results.room_for(size) else None
        masks = MaskWriter(exchange, shape, sparse=request.sparse)
        self._masks = self._stack.enter_context(masks)
        self._wanted = self._open("<f2") if request.probabilities else None
        self._kept = self._open("<f4", self._held) if self._held else None
        self._count = 0

    def __enter__(self) -> None:
        """Do nothing; the files are already open."""

    def __exit__(self, kind: object, *_: object) -> None:
        """Close the files; after an error, delete the held one."""
        self._stack.close()
        if kind is not None and self._held is not None:
            self._exchange.release(self._held)

    def add(self, masks: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> None:
        """Write masks and probabilities of one frame, `(K, H, W)` each."""
        self._masks.add(self._count, masks)
        self._count += 1
        for each in (self._wanted, self._kept):
            if each is not None:
                each.append(probabilities)

    def close(self, task: Task) -> dict[str, Any]:
        """Keep the probabilities and return the result's fields about the arrays."""
        handle = None
        if self._kept is not None:
            handle = self._results.keep(self._kept.path, self._kept.reference, task)
        return {
            **self._masks.result(),
            "probabilities": self._wanted.reference if self._wanted else None,
            "result": handle,
            "frames": self._count,
        }

    def _open(self, dtype: str, path: Path | None = None) -> ArrayWriter:
        return self._stack.enter_context(ArrayWriter(self._exchange, dtype, path=path))


@dataclass(frozen=True)
class _Opened:
    """An open input.

    Attributes:
        count: number of frames.
        shape: rows and columns of a frame.
        frames: the frames, decoded on iteration.
        warnings: collects their warnings.
    """

    count: int
    shape: tuple[int, int]
    frames: Iterator[Frame]
    warnings: WarningLog


def _open(
    given: ArrayInput | PathInput, job: RunningRequest, *, task: Task, studies: Studies
) -> _Opened:
    if isinstance(given, ArrayInput):
        _refuse(rejection_reason(task, given.source), force=given.force)
        count, rows, columns = given.shape
        warnings = WarningLog(count)
        frames = warnings.collect(given.frames(task.window))
        return _Opened(count, (rows, columns), frames, warnings)
    series = studies.series(given.path, given.series, check=job.check)
    _refuse(rejection_reason(task, series.properties), force=given.force)
    series = in_plane(series, given.plane)
    if given.frames is not None and given.frames[-1] >= series.frame_count:
        raise ProtocolError(
            "bad_request", f"frames: the series has only {series.frame_count} frames"
        )
    count = series.frame_count if given.frames is None else len(given.frames)
    cut = source_series(series) is not series
    warnings = WarningLog(source_series(series), cut=cut)
    frames = warnings.collect(series.frames(indices=given.frames, window=task.window))
    return _Opened(count, (series.rows, series.columns), frames, warnings)


def _refuse(rejection: Rejection | None, *, force: bool) -> None:
    if rejection is not None and not force:
        remedy = "choose a task that accepts it, or force this one"
        raise ProtocolError("task_mismatch", rejection.message, remedy)
