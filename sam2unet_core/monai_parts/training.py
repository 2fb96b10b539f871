"""Training components that MONAI lacks: precision, averaging, scales, seeds, processes."""

from __future__ import annotations

import copy
import math
import os
import random
from collections.abc import Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.data.utils import set_rnd
from monai.engines import default_prepare_batch
from monai.inferers import Inferer
from torch import Tensor, distributed, nn
from torch.nn.functional import interpolate
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sam2unet_core.errors import ConfigError, DataError
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import (
    load_trainable_state_dict,
    trainable_state_dict,
)

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class PrecisionInferer(Inferer):
    """Runs a network under its device's autocast and returns logits in float32.

    MONAI's own `amp` works only on CUDA; this works on a CPU too, in bfloat16.

    Args:
        precision: `float32`, `bfloat16`, or `float16` (CUDA only; the trainer scales the loss).
        device: the network's device.
    """

    def __init__(self, precision: str = "float32", device: torch.device | str = "cpu") -> None:
        if precision not in PRECISIONS:
            raise ConfigError(
                f"unknown precision {precision!r}; choose from {', '.join(PRECISIONS)}"
            )
        if precision == "float16" and torch.device(device).type != "cuda":
            raise ConfigError(
                f"precision float16 needs CUDA, but the device is {device}; "
                "use --precision bfloat16"
            )
        self.dtype = PRECISIONS[precision]

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        """Return logits; in training mode, a list of them."""
        pixels = plain(inputs)
        with torch.autocast(pixels.device.type, self.dtype, enabled=self.dtype is not None):
            output = network(pixels, *args, **kwargs)
        if isinstance(output, Tensor):
            return output.float()
        return [logits.float() for logits in output]


def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    """Make `optimizer` clip its gradient to `max_norm` before each step; 0 disables clipping.

    The hook runs inside `step`, after a loss scaler has unscaled the gradient.

    Raises:
        ConfigError: `max_norm` is negative.
    """
    if max_norm < 0:
        raise ConfigError(f"clip_norm {max_norm}: expected a norm above 0, or 0 for no clipping")
    if max_norm > 0:

        def clip(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, max_norm)

        optimizer.register_step_pre_hook(clip)


class ScaledBatch:
    """Prepares each batch at a random scale (multi-scale training).

    Args:
        scales: factors to choose from; sides are rounded to multiples of 32. The authors advise
            1 and 1.25 for polyps.
    """

    def __init__(self, scales: Sequence[float] = (1.0,)) -> None:
        if not scales or min(scales) <= 0:
            raise ConfigError(f"scales {list(scales)}: expected factors above 0, such as [1, 1.25]")
        self.scales = list(scales)

    def __call__(
        self,
        batchdata: dict[str, Tensor],
        device: torch.device | str | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Return image `(B, 3, h, w)` and label `(B, K, h, w)` on the device."""
        batch = default_prepare_batch(batchdata, device, non_blocking, **kwargs)[:2]
        image, label = (plain(part) for part in batch)
        scale = self.scales[int(torch.randint(len(self.scales), ()))]
        if scale == 1:
            return image, label
        size = scaled_size(image.shape[-2:], scale)
        image = interpolate(image, size=size, mode="bilinear", antialias=True)
        return image, interpolate(label, size=size, mode="bilinear", antialias=True)


def scaled_size(size: Sequence[int], scale: float) -> list[int]:
    """Return (height, width) at a scale, as multiples of 32; scale 1 changes nothing."""
    if scale == 1:
        return list(size)
    return [max(32, round(side * scale / 32) * 32) for side in size]


class WeightAverage:
    """A handler of the trainer: exponential moving average of the trained weights.

    With a decay of 0, nothing is averaged and `network` is the trained network itself. Otherwise it
    is a copy that shares the frozen trunk, which saves memory.

    ignite's EMAHandler and PyTorch's AveragedModel cannot share frozen weights, and they either
    copy or average all buffers.

    Args:
        network: the network in training.
        decay: weight of the previous average in each step, such as 0.999.
    """

    def __init__(self, network: SAM2UNet, decay: float = 0.0) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"ema {decay}: expected 0 (off) or a decay below 1, such as 0.999")
        self.decay = decay
        self.source = network
        self.network = network
        if decay:
            shared = {id(p): p for p in network.parameters() if not p.requires_grad}
            self.network = copy.deepcopy(network, shared)

    def attach(self, engine: Engine) -> None:
        """Update the average after each step of the trainer."""
        if self.decay:
            engine.add_event_handler(Events.STARTED, self.restart)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)

    def restart(self, engine: Engine) -> None:
        """Start the average of a new run from its initial weights."""
        if engine.state.iteration == 0:
            self.load_state_dict(trainable_state_dict(self.source))

    @torch.no_grad()
    def update(self, engine: Engine) -> None:
        """Move the average towards the current weights, faster in the first steps."""
        decay = min(self.decay, (1 + engine.state.iteration) / (10 + engine.state.iteration))
        pairs = zip(self.network.parameters(), self.source.parameters(), strict=True)
        moving = [(a, p) for a, p in pairs if p.requires_grad]
        averages: list[Tensor] = [a for a, _ in moving]
        current: list[Tensor] = [p for _, p in moving]
        # Averaged weights need averaged batch-normalisation statistics: with the current ones,
        # Dice fell by up to 0.3 in long trainings.
        for average, buffer in zip(self.network.buffers(), self.source.buffers(), strict=True):
            if buffer.is_floating_point():
                averages.append(average)
                current.append(buffer)
            else:
                average.copy_(buffer)
        move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        move(averages, current, engine.state.iteration)

    def state_dict(self) -> dict[str, Any]:
        """Return all weights but the frozen trunk's; empty if nothing is averaged."""
        return trainable_state_dict(self.network) if self.decay else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if self.decay:
            load_trainable_state_dict(self.network, state)


class EpochSeed:
    """Seeds all random generators at the start of each epoch, from (seed, epoch, process).

    This determines shuffling, augmentation, the loaders' workers and drop path. A resumed run is
    therefore identical to an uninterrupted one; the seed is stored in the checkpoint.

    Args:
        seed: the run's seed.
        dataset: its random transforms are seeded too, for loading without workers.
    """

    def __init__(self, seed: int, dataset: Any) -> None:
        self.seed = seed
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        """Seed at the start of each epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed Python, NumPy, PyTorch (all devices) and the transforms."""
        entropy = [self.seed, engine.state.epoch, idist.get_rank()]
        numbers = np.random.SeedSequence(entropy).generate_state(4)
        random.seed(int(numbers[0]))
        np.random.seed(int(numbers[1]))  # noqa: NPY002 - MONAI's transforms may use it
        torch.manual_seed(int(numbers[2]))
        set_rnd(self.dataset, seed=int(numbers[3]))

    def state_dict(self) -> dict[str, int]:
        """Return the seed; with the trainer's epoch, it determines all random states."""
        return {"seed": self.seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore the seed of the resumed run."""
        self.seed = state["seed"]


class FiniteLoss:
    """Stops training with an error at the first loss that is not finite.

    ignite's TerminateOnNan only warns and ends the run as if it had succeeded.
    """

    def attach(self, engine: Engine) -> None:
        """Check after each step of the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Raise if the last loss is not finite."""
        loss = engine.state.output["loss"].item()
        if not math.isfinite(loss):
            raise DataError(
                f"the loss is {loss} in epoch {engine.state.epoch}, step {engine.state.iteration}; "
                "lower --learning_rate, or use --precision float32"
            )


def plain(tensor: Tensor) -> Tensor:
    """Convert a MONAI MetaTensor, on which every operation is slower, to a plain tensor."""
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


def trainable_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters to optimise."""
    return [p for p in network.parameters() if p.requires_grad]


def start_process_group() -> None:
    """Join the process group that torchrun started: NCCL on GPUs, gloo on CPUs.

    Raises:
        ConfigError: torchrun did not start this process.
    """
    if not distributed.is_torchelastic_launched():
        raise ConfigError(
            "multi_gpu_train.yaml needs torchrun: torchrun --standalone --nproc_per_node=N -m "
            "monai.bundle run training --config_file ..."
        )
    device = process_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")


def process_device() -> torch.device:
    """Return this process's GPU, or the CPU if there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")
