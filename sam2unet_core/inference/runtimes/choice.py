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
    module = importlib.import_module(f"{__package__}.{RUNTIMES[plan.name].module}")
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
