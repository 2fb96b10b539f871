"""Which runtime runs a network on a device; docs/performance.md has the measurements."""

from __future__ import annotations

import logging

import torch
from torch import nn

from sam2unet_core.errors import ConfigError
from sam2unet_core.network import SAM2UNet
from sam2unet_core.runtimes.runtime import Runtime
from sam2unet_core.runtimes.torch_runtime import TorchRuntime, has_matrix_units, low_precision
from sam2unet_core.task import Task

RUNTIMES = ("auto", "exact", "fast", "openvino", "onnx")
"""`exact` is PyTorch in float32, `fast` PyTorch in 16 bits; `auto` takes one of the two."""

logger = logging.getLogger(__name__)


def check_runtime(name: str) -> None:
    """Refuse a name that is no runtime.

    Raises:
        ConfigError: it is none.
    """
    if name not in RUNTIMES:
        raise ConfigError(f"runtime {name!r}: there are {', '.join(RUNTIMES)}")


def open_runtime(name: str, network: nn.Module, task: Task, *, device: torch.device) -> Runtime:
    """Make a runtime of a network; the network is taken over, see `TorchRuntime`.

    Args:
        name: one of `RUNTIMES`.
        network: tensor `(N, 3, h, w)` to logits `(N, C, h, w)`, in float32.
        task: gives image size, activation and temperature.
        device: where it runs; `openvino` and `onnx` take their own.

    Raises:
        ConfigError: there is no such runtime, or not on this machine.
    """
    check_runtime(name)
    if name == "openvino":
        from sam2unet_core.runtimes.openvino_runtime import (  # noqa: PLC0415 - optional package
            OpenVINORuntime,
        )

        return OpenVINORuntime(network, task)
    if name == "onnx":
        from sam2unet_core.runtimes.onnx_runtime import (  # noqa: PLC0415 - optional package
            OnnxRuntime,
        )

        return OnnxRuntime(network, task)
    if name == "auto":
        name = "exact"
        reason = _why_exact(task, device)
        if reason is None and isinstance(network, SAM2UNet):
            name = "fast"
        if reason:
            logger.info("runtime exact: %s", reason)
    dtype = low_precision(device) if name == "fast" else torch.float32
    return TorchRuntime(network, task, device=device, dtype=dtype)


def weights_type(name: str, task: Task, *, device: torch.device) -> torch.dtype:
    """Return the type in which a runtime will want the large matrices of its network.

    Raises:
        ConfigError: there is no such runtime, or not on this machine.
    """
    check_runtime(name)
    if name == "fast" or (name == "auto" and _why_exact(task, device) is None):
        return low_precision(device)
    return torch.float32


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
