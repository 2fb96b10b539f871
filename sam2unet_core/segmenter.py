"""A bundle folder opened for segmenting frames, without MONAI."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sam2unet_core.errors import DataError, MissingWeightsError, WeightsError
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint.formats import read_checkpoint, read_task
from sam2unet_core.network.checkpoint.loading import build_model
from sam2unet_core.postprocess import label_map
from sam2unet_core.runtimes import open_runtime, weights_type
from sam2unet_core.runtimes.torch_runtime import choose_device
from sam2unet_core.task import Task, installed_bundle, load_preset, presets


class Segmenter:
    """A task and the network that solves it, ready to segment frames.

    Args:
        task: what the network's channels mean.
        network: tensor `(N, 3, h, w)` to logits `(N, C, h, w)`, in float32. It is taken over:
            optimised for inference in place, it cannot be trained or saved any more.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        runtime: one of `sam2unet_core.runtimes.RUNTIMES`.

    Raises:
        WeightsError: the network has another number of channels than the task.
        ConfigError: device or runtime do not exist.
    """

    def __init__(
        self, task: Task, network: nn.Module, *, device: str = "auto", runtime: str = "auto"
    ) -> None:
        channels = getattr(network, "num_classes", task.num_channels)
        if channels != task.num_channels:
            raise WeightsError(
                f"the network has {channels} output channels, the task {task.name!r} needs "
                f"{task.num_channels}; give weights of that task"
            )
        self.task = task
        self.runtime = open_runtime(runtime, network, task, device=choose_device(device))

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
            task: a task, or the name of one that comes with the package, in place of the
                bundle's own.
            weights: a weights file in place of the bundle's own. A file that holds its task
                brings it along, unless `bundle` or `task` is given.
            device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
            runtime: one of `sam2unet_core.runtimes.RUNTIMES`.

        Raises:
            TaskError: the task cannot be read.
            MissingWeightsError: there are no weights for this task on this machine.
            WeightsError: the weights do not fit the task, or are not those of the bundle.
            ConfigError: device or runtime do not exist.
        """
        folder = Path(bundle) if bundle is not None else installed_bundle()
        chosen = choose_task(folder, task, weights, bundle_given=bundle is not None)
        file = Path(weights) if weights is not None else bundled_weights(folder, chosen)
        matrices = weights_type(runtime, chosen, device=choose_device(device))
        network = load_for_inference(file, matrices=matrices)
        return cls(chosen, network, device=device, runtime=runtime)

    def probabilities(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return class probabilities at the frames' own size.

        Args:
            frames: `(N, H, W, 3)` uint8 RGB.

        Returns:
            `(N, K, H, W)` float32 in 0 to 1.

        Raises:
            DataError: the array is of another shape or type.
        """
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
            raise DataError(
                f"frames: expected (N, H, W, 3) uint8, got {frames.shape} {frames.dtype}"
            )
        return self.runtime.probabilities(frames)

    def label_maps(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return label maps `(N, H, W)` uint8 of frames `(N, H, W, 3)` uint8 RGB."""
        found = self.probabilities(frames)
        maps = [label_map(p, self.task) for p in found]
        return np.stack(maps) if maps else np.zeros(frames.shape[:3], np.uint8)


def load_for_inference(file: Path | str, *, matrices: torch.dtype = torch.float32) -> SAM2UNet:
    """Return the network of a weights file that can segment.

    Args:
        file: whole network or delta.
        matrices: type of large matrices, see `load_model`.

    Raises:
        WeightsError: it cannot be read, or holds SAM2's trunk alone.
        MissingWeightsError: it is a delta, and its trunk is not on this machine.
    """
    checkpoint = read_checkpoint(file, matrices=matrices)
    if not checkpoint.has_decoder:
        raise WeightsError(
            f"{file}: holds SAM2's trunk alone, which segments nothing by itself; train with it "
            "(`sam2unet train --data DIR -o RUN`) and give the run's model.safetensors"
        )
    return build_model(checkpoint)


def unmeasured(task: Task) -> Task:
    """Return the task without its weights and all that belongs to them, as others are used.

    That is what was measured of them, the temperature and the peak that were fitted to them,
    whether mirror images are averaged, and the image size that they were trained at: a preset of
    the same name has the task's usual one.
    """
    if task.weights is None:
        return replace(task, metrics={})
    size = load_preset(task.name).image_size if task.name in presets() else task.image_size
    return replace(
        task,
        weights=None,
        metrics={},
        temperature=1.0,
        flip_average=False,
        peak_threshold=0.0,
        image_size=size,
    )


def bundled_weights(bundle: Path, task: Task) -> Path:
    """Return the weights file that the task names, checked against its hash.

    Raises:
        MissingWeightsError: the task names none, or the file is not there.
        WeightsError: the file is not the one the task was measured with.
    """
    if task.weights is None:
        raise MissingWeightsError(
            f"the task {task.name!r} comes without weights; train some with `sam2unet train "
            f"--task {task.name} --data DIR -o OUT` and give the file with --weights"
        )
    file = bundle / task.weights.file
    if not file.is_file():
        raise MissingWeightsError(f"{file}: the bundle's weights are missing; install it again")
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != task.weights.sha256:
        raise WeightsError(
            f"{file}: sha256 is {found}, the task names {task.weights.sha256}; install it again"
        )
    return file


def choose_task(
    folder: Path, task: str | Task | None, weights: Path | str | None, *, bundle_given: bool
) -> Task:
    """Return the task of a bundle folder, of a name, or that a weights file brings along.

    Raises:
        TaskError: it cannot be read.
    """
    if isinstance(task, Task):
        return task if weights is None else unmeasured(task)
    own = Task.load(folder / "configs" / "task.json")
    if weights is not None:
        own = unmeasured(own)
    if task is not None and task != own.name:
        return load_preset(task) if weights is None else unmeasured(load_preset(task))
    if task is not None:
        return own
    if weights is not None and not bundle_given:
        return read_task(weights) or own
    return own
