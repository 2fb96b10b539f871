"""The inference loop from frames to masks: batches, out-of-memory handling, cores, timings.

    series.frames -> in_background -> Engine.results -> FrameResult

Batch runs, the worker, the bundle and the Python interface all use `Engine`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2unet_core.errors import OutOfMemoryError, WeightsError, is_out_of_memory
from sam2unet_core.inference.model import Model
from sam2unet_core.inference.threads import Computing, Cores, in_background
from sam2unet_core.inference.transforms import class_masks, label_map, prepare, to_probabilities
from sam2unet_core.task import Task
from sam2unet_core.types import Frame

logger = logging.getLogger(__name__)
BATCH_SIZE = 4
"""Frames in the network at once."""
_ITEMS_PER_FRAME = 3
"""Items of a stream per frame: a folder of pictures has two marks around each frame."""

Mark = TypeVar("Mark")


@dataclass(frozen=True)
class FrameResult:
    """The result of one frame.

    Attributes:
        frame: the frame.
        probabilities: `(K, H, W)` float32 from 0 to 1, one channel per class.
        masks: `(K, H, W)` bool; classes may overlap.
        labels: `(H, W)` uint8, 0 background, k the k-th class.
        seconds: time spent in the network.
    """

    frame: Frame
    probabilities: NDArray[np.float32]
    masks: NDArray[np.bool_]
    labels: NDArray[np.uint8]
    seconds: float = 0.0


@dataclass(frozen=True)
class FrameFailure:
    """A frame that could not be segmented.

    Attributes:
        frame: the frame.
        error: why.
    """

    frame: Frame
    error: Exception


class Engine:
    """A context manager that runs frames through a model's network.

    Args:
        model: the model.
        batch_size: frames per batch; reduced if memory runs out.
        at_once: frames computed in parallel, each on its own cores; 1 for batches.
    """

    def __init__(self, model: Model, *, batch_size: int = BATCH_SIZE, at_once: int = 1) -> None:
        self.model = model
        self.at_once = at_once
        self._cores = Cores(at_once) if at_once > 1 else None
        self._fit = _Fit(batch_size if at_once == 1 else 1, model.task.flip_average)
        self._lock = threading.Lock()
        self._told = False
        self._ahead = max(2 * batch_size, _ITEMS_PER_FRAME * (at_once + 1))

    @classmethod
    def for_throughput(cls, model: Model, *, batch_size: int = BATCH_SIZE) -> Engine:
        """Return the engine with the highest throughput.

        With PyTorch on a CPU, each frame is computed on its own cores, which do not share the work
        of one frame well: on two cores, two frames in parallel take a third less time than one
        after the other. Otherwise, frames are computed in batches.
        """
        cores = torch.get_num_threads() if model.runtime.shares_cores else 1
        return cls(model, batch_size=batch_size, at_once=max(1, min(batch_size, cores)))

    @classmethod
    def for_latency(cls, model: Model) -> Engine:
        """Return the engine with the lowest latency.

        On a CPU, the batch size is 1: as fast as batches there, and the first result comes sooner.
        """
        return cls(model, batch_size=1 if model.runtime.device.type == "cpu" else BATCH_SIZE)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the threads; frames that have not been started are cancelled."""
        if self._cores is not None:
            self._cores.close()

    def results(self, frames: Iterable[Frame]) -> Generator[FrameResult]:
        """Segment frames, in order.

        Raises:
            OutOfMemoryError: a single frame does not fit into the device's memory.
            WeightsError: the network's output is not finite.
        """
        found: FrameResult | FrameFailure
        for found in self.through(frames):
            if isinstance(found, FrameFailure):
                raise found.error
            yield found

    def through(
        self, stream: Iterable[Frame | Mark]
    ) -> Iterator[FrameResult | FrameFailure | Mark]:
        """Segment the frames of a stream, and pass everything else (marks) through in order.

        A separate thread reads the stream, so that decoding runs ahead of the network. Marks divide
        the frames into units: if a frame fails, the frames up to the next mark are dropped.
        Consecutive frames of the same size form a batch.
        """
        if self._cores is None:
            with in_background(stream, limit=self._ahead) as ahead:
                yield from self._together(ahead)
            return
        with in_background(self._cores.start(stream, self._alone), limit=self._ahead) as started:
            yield from self._one_by_one(started, self._cores)

    def probabilities(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return class probabilities `(N, K, H, W)` float32 of frames `(N, H, W, 3)` uint8 RGB.

        Raises:
            OutOfMemoryError: a single frame does not fit into the device's memory.
            WeightsError: the network's output is not finite.
        """
        count, height, width, _ = frames.shape
        found = np.empty((count, self.model.task.num_classes, height, width), np.float32)
        for part, probabilities in self._parts(count, lambda part: frames[part]):
            if len(probabilities) == count:
                return probabilities
            found[part] = probabilities
        return found

    def _together(
        self, stream: Iterable[Frame | Mark]
    ) -> Iterator[FrameResult | FrameFailure | Mark]:
        failed = False
        for batch in self._batches(stream):
            if not isinstance(batch, list):
                failed = False
                yield batch
            elif not failed:
                for found in self._batch(batch):
                    failed = isinstance(found, FrameFailure)
                    yield found

    def _batches(self, stream: Iterable[Frame | Mark]) -> Iterator[list[Frame] | Mark]:
        """Yield marks, and between them batches of frames of the same size."""
        batch: list[Frame] = []
        for item in stream:
            if not isinstance(item, Frame):
                if batch:
                    yield batch
                batch = []
                yield item
                continue
            if batch and item.pixels.shape != batch[0].pixels.shape:
                yield batch
                batch = []
            batch.append(item)
            if len(batch) >= self._fit.frames:
                yield batch
                batch = []
        if batch:
            yield batch

    def _one_by_one(
        self, started: Iterable[Computing[FrameResult | FrameFailure] | Mark], cores: Cores
    ) -> Iterator[FrameResult | FrameFailure | Mark]:
        failed = False
        for item in started:
            if not isinstance(item, Computing):
                failed = False
                yield item
            elif failed:
                item.result.cancel()
            else:
                found = item.result.result()
                if isinstance(found, FrameFailure) and is_out_of_memory(found.error):
                    # Frames computed in parallel may have used the memory.
                    found = cores.retry_alone(self._alone, item.frame)
                failed = isinstance(found, FrameFailure)
                yield found

    def _alone(self, frame: Frame) -> FrameResult | FrameFailure:
        (found,) = self._batch([frame])
        return found

    def _batch(self, batch: list[Frame]) -> Iterator[FrameResult | FrameFailure]:
        """Yield the results of frames of the same size, up to the first failure."""
        done = 0
        try:
            started = time.perf_counter()
            for part, found in self._parts(len(batch), lambda part: _stacked(batch[part])):
                frames = batch[part]
                pairs = zip(frames, found, strict=True)
                results = [to_result(frame, each, self.model.task) for frame, each in pairs]
                seconds = (time.perf_counter() - started) / len(frames)
                for result in results:
                    done += 1
                    yield replace(result, seconds=seconds)
                started = time.perf_counter()
        except Exception as error:
            yield FrameFailure(batch[done], error)

    def _parts(
        self, count: int, take: Callable[[slice], NDArray[np.uint8]]
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield slices of the frames and their probabilities; smaller ones if memory runs out.

        Args:
            count: number of frames.
            take: returns the pixels `(N, H, W, 3)` of a slice.
        """
        start = 0
        while start < count:
            fit = self._fit
            part = slice(start, min(start + fit.frames, count))
            try:
                found = self._probabilities(take(part), mirrored_together=fit.mirrored_together)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._reduce(fit)
            else:
                yield part, found
                start = part.stop

    @torch.inference_mode()
    def _probabilities(
        self, frames: NDArray[np.uint8], *, mirrored_together: bool
    ) -> NDArray[np.float32]:
        task, runtime = self.model.task, self.model.runtime
        size = (int(frames.shape[1]), int(frames.shape[2]))
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        images = prepare(pixels.to(runtime.device), task.image_size)
        if not task.flip_average:
            return self._restored(runtime.logits(images), size).cpu().numpy()
        if mirrored_together:  # up to a third faster than one after the other
            plain, mirrored = runtime.logits(torch.cat([images, images.flip(-1)])).chunk(2)
        else:
            plain, mirrored = runtime.logits(images), runtime.logits(images.flip(-1))
        found = self._restored(plain, size)
        return found.add_(self._restored(mirrored.flip(-1), size)).div_(2).cpu().numpy()

    def _restored(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        # NaN compared with a threshold would look like no finding. A sum is finite only if all
        # values are.
        if not logits.float().sum().isfinite():
            cause = "its weights are damaged"
            if self.model.runtime.precision == "float16":
                cause += ", or its values are too large for 16 bits: try the runtime `exact`"
            raise WeightsError(f"the network's output is not a number; {cause}")
        return to_probabilities(logits, self.model.task, size)

    def _reduce(self, used: _Fit) -> None:
        """Reduce the batch size from now on.

        Raises:
            OutOfMemoryError: the batch was a single image.
        """
        if self.model.runtime.device.type == "cuda":
            torch.cuda.empty_cache()
        with self._lock:
            if used != self._fit:  # another thread has already reduced it
                return
            if used.frames == 1 and not used.mirrored_together:
                raise OutOfMemoryError(
                    "out of memory with a single frame; use --device cpu or a smaller network"
                )
            if used.frames == 1:
                self._fit = _Fit(1, mirrored_together=False)
            else:
                self._fit = used._replace(frames=used.frames // 2)
            if not self._told:
                self._told = True
                logger.warning("the device ran out of memory: continuing with smaller batches")


class _Fit(NamedTuple):
    """What fits into memory at once: number of frames, and whether with their mirror images."""

    frames: int
    mirrored_together: bool


def to_result(frame: Frame, probabilities: NDArray[np.float32], task: Task) -> FrameResult:
    """Return the result of a frame from its probabilities `(K, H, W)`."""
    masks = class_masks(probabilities, task)
    one_class = len(masks) == 1
    labels = masks[0].astype(np.uint8) if one_class else label_map(probabilities, task)
    return FrameResult(frame, probabilities, masks, labels)


def _stacked(frames: list[Frame]) -> NDArray[np.uint8]:
    """Return the pixels `(N, H, W, 3)`; a single frame is not copied."""
    return np.stack([f.pixels for f in frames]) if len(frames) > 1 else frames[0].pixels[None]
