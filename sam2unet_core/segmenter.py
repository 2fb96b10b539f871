"""The Python interface: segment frames and series with a task's network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sam2unet_core.errors import DataError
from sam2unet_core.inference.engine import BATCH_SIZE, Engine, FrameResult
from sam2unet_core.inference.model import Model, choose_model, open_model
from sam2unet_core.inference.runtimes.runtime import Runtime
from sam2unet_core.inference.transforms import label_map
from sam2unet_core.task import Task
from sam2unet_core.types import OnError, Series


class Segmenter:
    """A task and the network that solves it, ready to segment frames.

    Args:
        task: what the network's channels mean.
        network: maps `(N, 3, h, w)` to logits `(N, C, h, w)`, in float32. It is optimised for
            inference in place and must not be trained or saved afterwards.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        runtime: one of `sam2unet_core.inference.runtimes.RUNTIME_NAMES`.

    Raises:
        WeightsError: the network's number of channels differs from the task's.
        ConfigError: the device or the runtime does not exist.
    """

    def __init__(
        self, task: Task, network: nn.Module, *, device: str = "auto", runtime: str = "auto"
    ) -> None:
        self.model = Model.of_network(task, network, device=device, runtime=runtime)

    @classmethod
    def of(cls, model: Model) -> Segmenter:
        """Wrap an open model."""
        made = cls.__new__(cls)
        made.model = model
        return made

    @classmethod
    def open(
        cls,
        bundle: Path | str | None = None,
        *,
        task: str | Task | None = None,
        weights: Path | str | None = None,
        device: str = "auto",
        runtime: str = "auto",
    ) -> Segmenter:
        """Open a bundle folder.

        Args:
            bundle: folder with `configs/task.json`; the installed bundle by default.
            task: a task, the name of a built-in one, or a `task.json`, in place of the bundle's.
            weights: a weights file in place of the bundle's. The task stored in it is used unless
                `bundle` or `task` is given.
            device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
            runtime: one of `sam2unet_core.inference.runtimes.RUNTIME_NAMES`.

        Raises:
            TaskError: the task cannot be read.
            MissingWeightsError: this machine has no weights for this task.
            WeightsError: the weights do not fit the task, or are not those of the bundle.
            ConfigError: the device or the runtime does not exist.
        """
        source = choose_model(bundle, task=task, weights=weights)
        return cls.of(open_model(source, device=device, runtime=runtime))

    @property
    def task(self) -> Task:
        """What the network's channels mean, and the threshold in use."""
        return self.model.task

    @property
    def runtime(self) -> Runtime:
        """The runtime that runs the network."""
        return self.model.runtime

    def with_threshold(self, threshold: float) -> Segmenter:
        """Return a segmenter that runs the same network with a different threshold."""
        return Segmenter.of(self.model.with_threshold(threshold))

    def segment(
        self,
        series: Series,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int = BATCH_SIZE,
        on_error: OnError | None = None,
    ) -> Iterator[FrameResult]:
        """Segment the frames of a series, in order, decoding ahead of the network.

        Args:
            series: the series, such as one of `open_study`.
            indices: which frames, ascending from 0; all by default.
            batch_size: frames in the network at once; on a CPU, each runs on its own core.
            on_error: called for each instance that cannot be decoded; the others are segmented.

        Raises:
            InputError: a frame cannot be decoded and `on_error` is None.
            OutOfMemoryError: a single frame does not fit into the device's memory.
        """
        window = self.task.window
        frames = series.frames(indices=indices, window=window, on_error=on_error)
        with Engine.for_throughput(self.model, batch_size=batch_size) as engine:
            yield from engine.results(frames)

    def probabilities(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return class probabilities at the frames' own size.

        Args:
            frames: `(N, H, W, 3)` uint8 RGB.

        Returns:
            `(N, K, H, W)` float32 from 0 to 1.

        Raises:
            DataError: the array has the wrong shape or type.
        """
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
            raise DataError(
                f"frames: expected (N, H, W, 3) uint8, got {frames.shape} {frames.dtype}"
            )
        return Engine(self.model).probabilities(frames)

    def label_maps(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return label maps `(N, H, W)` uint8 of frames `(N, H, W, 3)` uint8 RGB."""
        found = self.probabilities(frames)
        maps = [label_map(p, self.task) for p in found]
        return np.stack(maps) if maps else np.zeros(frames.shape[:3], np.uint8)
