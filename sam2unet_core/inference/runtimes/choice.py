"""Chooses the runtime for a device; docs/performance.md has the measurements."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass

import torch
from torch import nn

from sam2unet_core.inference.runtimes import AUTO, RUNTIMES, check_runtime
from sam2unet_core.inference.runtimes.runtime import Runtime
from sam2unet_core.inference.runtimes.torch_runtime import has_matrix_units, low_precision
from sam2unet_core.network import SAM2UNet
from sam2unet_core.task import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """How a network is going to be run.

    Attributes:
        name: one of `RUNTIMES`.
        dtype: of the numbers that it computes in.
        device: where; other libraries than PyTorch choose their own.
    """

    name: str
    dtype: torch.dtype
    device: torch.device


def choose_runtime(
    name: str, task: Task, *, device: torch.device, network: nn.Module | None = None
) -> Plan:
    """Return how a task's network is to be run.

    Args:
        name: one of `RUNTIMES`, or `auto`.
        task: `auto` takes 16 bits only where they keep this task's decisions.
        device: where.
        network: where it is there already: `auto` knows SAM2-UNet alone in 16 bits.

    Raises:
        ConfigError: there is no such runtime, or not on this machine.
    """
    check_runtime(name)
    if name == AUTO:
        reason = _why_exact(task, device)
        if network is not None and not isinstance(network, SAM2UNet):
            reason = "16 bits have been measured with SAM2-UNet alone"
        name = "exact" if reason else "fast"
        if reason:
            logger.info("runtime exact: %s", reason)
    return Plan(name, low_precision(device) if name == "fast" else torch.float32, device)


def open_runtime(plan: Plan, network: nn.Module, *, size: tuple[int, int]) -> Runtime:
    """Make a runtime of a network; the network is taken over: it cannot be trained any more.

    Args:
        plan: how.
        network: tensor `(N, 3, h, w)` to logits `(N, C, h, w)`; its large matrices may be of the
            plan's type already.
        size: (height, width) of its images in pixels.

    Raises:
        ConfigError: the library that runs it is not installed.
    """
    module = importlib.import_module(f"{__package__}.{RUNTIMES[plan.name].module}")
    runtime: Runtime = module.open_runtime(network, size=size, device=plan.device, dtype=plan.dtype)
    return runtime


def _why_exact(task: Task, device: torch.device) -> str | None:
    """Say why 16 bits are not taken unasked on a device; None where they were measured to pay."""
    if device.type != "cpu":
        return f"16 bits have not been measured on {device.type}"
    if has_matrix_units(torch.float16):
        return None
    if not has_matrix_units(torch.bfloat16):
        return "this processor has no 16-bit matrix units (AMX)"
    if task.peak_threshold > task.threshold:
        return "in bfloat16 components near the task's peak threshold come and go"
    return None
