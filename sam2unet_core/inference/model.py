"""Opens a model: a task, its weights, and the runtime for the network.

choose_model -> ModelSource -> open_model -> Model. docs/performance.md has the measurements behind
the choice of the runtime.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from sam2unet_core.errors import MissingWeightsError, WeightsError
from sam2unet_core.files import file_sha256
from sam2unet_core.inference import runtimes
from sam2unet_core.inference.cpu.prepare import share_trunk
from sam2unet_core.inference.runtimes import AUTO, RUNTIMES, check_runtime
from sam2unet_core.inference.runtimes.runtime import Runtime
from sam2unet_core.inference.runtimes.torch_runtime import (
    TorchRuntime,
    choose_device,
    has_matrix_units,
    low_precision,
)
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import trunk_hash
from sam2unet_core.network.checkpoint.formats import Checkpoint, read_checkpoint, task_in_weights
from sam2unet_core.network.checkpoint.loading import build_model, build_on_trunk
from sam2unet_core.task import Task, installed_bundle, load_preset, presets


@dataclass(frozen=True)
class ModelSource:
    """A task and its weights file, which has not been read yet.

    Attributes:
        task: what the network's channels mean.
        file: whole network or delta.
        expected_sha256: the hash in the bundle; None for the user's own weights.
    """

    task: Task
    file: Path
    expected_sha256: str | None = None

    @cached_property
    def sha256(self) -> str:
        """Hash of the weights file, computed once."""
        return file_sha256(self.file)

    def check(self) -> None:
        """Check that the bundle's weights file is unchanged.

        Raises:
            WeightsError: its hash differs from the one in the bundle.
        """
        if self.expected_sha256 is not None and self.expected_sha256 != self.sha256:
            raise WeightsError(
                f"{self.file}: sha256 is {self.sha256}, but the task has {self.expected_sha256}; "
                "install sam2unet again"
            )


@dataclass(frozen=True, eq=False)
class Model:
    """A task and the network that solves it, ready to run.

    Attributes:
        task: what the network's channels mean, and the threshold in use.
        runtime: runs the network.
        plan: how it is run.
        source: where it was opened from; None for a network built in Python.
        shared_trunk_sha256: hash of a delta's trunk.
    """

    task: Task
    runtime: Runtime
    plan: Plan
    source: ModelSource | None = None
    shared_trunk_sha256: str | None = None

    @classmethod
    def of_network(
        cls,
        task: Task,
        network: nn.Module,
        *,
        device: str = "auto",
        runtime: str = "auto",
        source: ModelSource | None = None,
    ) -> Model:
        """Make a model of a network, which is optimised in place and must not be trained any more.

        Args:
            task: what the network's channels mean.
            network: maps `(N, 3, h, w)` to logits `(N, C, h, w)`, in float32.
            device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
            runtime: one of `sam2unet_core.inference.runtimes.RUNTIME_NAMES`.
            source: where its weights come from.

        Raises:
            WeightsError: the network's number of channels differs from the task's.
            ConfigError: the device or the runtime does not exist.
        """
        _check_channels(task, getattr(network, "num_classes", task.num_channels))
        plan = choose_runtime(runtime, task, device=choose_device(device), network=network)
        return cls(task, open_runtime(plan, network, size=task.image_size), plan, source)

    @property
    def weights_sha256(self) -> str | None:
        """Hash of the weights file; None for a network built in Python."""
        return None if self.source is None else self.source.sha256

    @cached_property
    def trunk_sha256(self) -> str | None:
        """Hash of the trunk; None for a network built in Python, or if its file was replaced."""
        if self.shared_trunk_sha256 is not None or self.source is None:
            return self.shared_trunk_sha256
        file = self.source.file
        if not file.is_file() or file_sha256(file) != self.source.sha256:
            return None
        return trunk_hash(read_checkpoint(file).tensors)

    def with_threshold(self, threshold: float) -> Model:
        """Return the same model with a different threshold."""
        return replace(self, task=self.task.with_threshold(threshold))


def choose_model(
    bundle: Path | str | None = None,
    *,
    task: str | Task | None = None,
    weights: Path | str | None = None,
    weights_first: bool | None = None,
) -> ModelSource:
    """Choose a task and its weights.

    Args:
        bundle: folder with `configs/task.json`; the installed bundle by default.
        task: a task, the name of a built-in one, or a `task.json`, in place of the bundle's.
        weights: a weights file in place of the bundle's.
        weights_first: whether to prefer the task stored in the weights file to the bundle's; by
            default, if no bundle is given.

    Raises:
        TaskError: the task cannot be read.
        WeightsError: the weights file cannot be read.
        MissingWeightsError: this machine has no weights for this task.
    """
    folder = Path(bundle) if bundle is not None else installed_bundle()
    first = bundle is None if weights_first is None else weights_first
    chosen = choose_task(folder, task, weights, weights_first=first)
    if weights is not None:
        return ModelSource(chosen, Path(weights))
    if chosen.weights is None:
        raise MissingWeightsError(
            f"the task {chosen.name!r} has no weights; train some with `sam2unet train "
            f"--task {chosen.name} --data DIR -o OUT` and give the file with --weights"
        )
    file = folder / chosen.weights.file
    if not file.is_file():
        raise MissingWeightsError(
            f"{file}: the bundle's weights are missing; install sam2unet again"
        )
    return ModelSource(chosen, file, chosen.weights.sha256)


def choose_task(
    bundle: Path | str,
    task: str | Task | None = None,
    weights: Path | str | None = None,
    *,
    weights_first: bool = False,
) -> Task:
    """Return the task given by name or file, stored in a weights file, or of a bundle.

    With the user's own weights, the task is returned without the metrics of the bundle's weights.

    Raises:
        TaskError: the task cannot be read.
        WeightsError: the weights file cannot be read.
    """
    own = Path(bundle) / "configs" / "task.json"
    if task is None and weights is not None and weights_first:
        held = task_in_weights(weights)
        if held is not None:
            return held
    if isinstance(task, Task):
        found = task
    elif task is not None and task.endswith(".json"):
        found = Task.load(task)
    elif task is None or (own.is_file() and Task.load(own).name == task):
        found = Task.load(own)
    else:
        found = load_preset(task)
    return found if weights is None else unmeasured(found)


def unmeasured(task: Task) -> Task:
    """Return the task without its weights and everything that belongs to them.

    These are metrics, temperature, peak threshold, flip averaging and image size. The image size is
    reset to that of the preset of the same name.
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


def open_model(
    source: ModelSource,
    *,
    device: str = "auto",
    runtime: str = "auto",
    beside: Iterable[Model] = (),
) -> Model:
    """Load the weights and open the runtime.

    Args:
        source: task and weights.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        runtime: one of `sam2unet_core.inference.runtimes.RUNTIME_NAMES`.
        beside: open models; a delta shares the trunk of one that has it.

    Raises:
        WeightsError: the weights do not fit the task, or are not those of the bundle.
        MissingWeightsError: the weights are a delta, and its trunk is not in the cache.
        ConfigError: the device or the runtime does not exist.
    """
    plan = choose_runtime(runtime, source.task, device=choose_device(device))
    source.check()
    _ = source.sha256  # of what is read now: the file may be replaced while the model is in use
    checkpoint = read_checkpoint(source.file, matrices=plan.dtype)
    donor = next((each for each in beside if _has_trunk_of(each, checkpoint, plan)), None)
    network = _network(checkpoint) if donor is None else _on_trunk_of(donor, checkpoint)
    _check_channels(source.task, network.num_classes)
    opened = open_runtime(plan, network, size=source.task.image_size)
    trunk = None if checkpoint.has_trunk else checkpoint.trunk_sha256
    return Model(source.task, opened, plan, source, trunk)


def read_network(file: Path | str, *, matrices: torch.dtype = torch.float32) -> SAM2UNet:
    """Load the network of a weights file that has a decoder.

    Args:
        file: whole network or delta.
        matrices: type of large matrices; see `load_model`.

    Raises:
        WeightsError: the file cannot be read, or holds only SAM2's trunk.
        MissingWeightsError: the file is a delta, and its trunk is not in the cache.
    """
    return _network(read_checkpoint(file, matrices=matrices))


def _network(checkpoint: Checkpoint) -> SAM2UNet:
    if not checkpoint.has_decoder:
        raise WeightsError(
            f"{checkpoint.path}: holds only SAM2's trunk, which cannot segment by itself; train "
            "with it (`sam2unet train --data DIR -o RUN`) and give the run's model.safetensors"
        )
    return build_model(checkpoint)


def _has_trunk_of(donor: Model, delta: Checkpoint, plan: Plan) -> bool:
    """Return whether an open model has a delta's trunk in the type that the plan needs."""
    runtime = donor.runtime
    return (
        not delta.has_trunk
        and delta.trunk_sha256 is not None
        and donor.plan == plan
        and isinstance(runtime, TorchRuntime)
        and isinstance(runtime.network, SAM2UNet)
        and runtime.network.variant == delta.variant
        and donor.trunk_sha256 == delta.trunk_sha256
    )


def _on_trunk_of(donor: Model, delta: Checkpoint) -> SAM2UNet:
    network = build_on_trunk(delta)
    share_trunk(network, donor.runtime.network)  # type: ignore[attr-defined]
    return network.eval()


def _check_channels(task: Task, channels: int) -> None:
    if channels != task.num_channels:
        raise WeightsError(
            f"the network has {channels} output channels, the task {task.name!r} needs "
            f"{task.num_channels}; give weights trained for this task"
        )


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """How to run a network.

    Attributes:
        name: one of `RUNTIMES`.
        dtype: the type that it computes in.
        device: the device; libraries other than PyTorch choose their own.
    """

    name: str
    dtype: torch.dtype
    device: torch.device


def choose_runtime(
    name: str, task: Task, *, device: torch.device, network: nn.Module | None = None
) -> Plan:
    """Choose how to run a task's network.

    Args:
        name: one of `RUNTIMES`, or `auto`.
        task: `auto` chooses 16 bits only if they are accurate enough for this task.
        device: the device.
        network: the network, if it is already built; `auto` chooses 16 bits only for SAM2-UNet.

    Raises:
        ConfigError: there is no such runtime, or it does not run on this machine.
    """
    check_runtime(name)
    if name == AUTO:
        reason = _why_exact(task, device)
        if network is not None and not isinstance(network, SAM2UNet):
            reason = "16 bits have been measured only with SAM2-UNet"
        name = "exact" if reason else "fast"
        if reason:
            logger.info("runtime exact: %s", reason)
    return Plan(name, low_precision(device) if name == "fast" else torch.float32, device)


def open_runtime(plan: Plan, network: nn.Module, *, size: tuple[int, int]) -> Runtime:
    """Open the runtime of a network, which must not be trained afterwards.

    Args:
        plan: how to run it.
        network: maps `(N, 3, h, w)` to logits `(N, C, h, w)`; its large matrices may already have
            the plan's type.
        size: (height, width) of its images in pixels.

    Raises:
        ConfigError: the library that runs it is not installed.
    """
    module = importlib.import_module(f"{runtimes.__name__}.{RUNTIMES[plan.name].module}")
    runtime: Runtime = module.open_runtime(network, size=size, device=plan.device, dtype=plan.dtype)
    return runtime


def _why_exact(task: Task, device: torch.device) -> str | None:
    """Return why `auto` does not choose 16 bits on a device; None if it does."""
    if device.type != "cpu":
        return f"16 bits have not been measured on {device.type}"
    if has_matrix_units(torch.float16):
        return None
    if not has_matrix_units(torch.bfloat16):
        return "this processor has no 16-bit matrix units (AMX)"
    if task.peak_threshold > task.threshold:
        return "bfloat16 changes which components reach the task's peak threshold"
    return None
