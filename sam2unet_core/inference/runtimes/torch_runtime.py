"""PyTorch: in float32, the reference, and in 16 bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.backends import cudnn

from sam2unet_core.errors import ConfigError
from sam2unet_core.inference.cpu.packed import can_pack, cpu_capabilities
from sam2unet_core.inference.cpu.prepare import optimise
from sam2unet_core.inference.runtimes.runtime import Runtime
from sam2unet_core.network import SAM2UNet


def open_runtime(
    network: nn.Module, *, size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> Runtime:
    """Make the runtime; see `TorchRuntime`."""
    return TorchRuntime(network, size=size, device=device, dtype=dtype)


class TorchRuntime(Runtime):
    """Runs a network with PyTorch.

    Args:
        network: maps `(N, 3, h, w)` to logits `(N, C, h, w)`. It is changed in place: put in eval
            mode and, if it is a SAM2UNet, optimised for inference.
        size: (height, width) of its images in pixels; other sizes work, but slower.
        device: where it runs.
        dtype: `float32` (the runtime `exact`), or `bfloat16` or `float16` (`fast`).
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        size: tuple[int, int],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.device = device
        self.shares_cores = device.type == "cpu"
        self.name = "exact" if dtype == torch.float32 else "fast"
        self.precision = str(dtype).removeprefix("torch.")
        self.dtype = dtype
        self.network = network.eval().to(device)
        if isinstance(network, SAM2UNet):
            optimise(network, size=size, dtype=dtype)
        else:
            network.to(dtype)

    def logits(self, images: Tensor) -> Tensor:
        """Return `(N, C, h, w)` logits of `(N, 3, h, w)` float32 images."""
        images = images.to(dtype=self.dtype, memory_format=torch.channels_last)
        in_float32 = self.device.type == "cuda" and self.dtype == torch.float32
        with _full_float32() if in_float32 else nullcontext():
            logits: Tensor = self.network(images)
        return logits


@contextmanager
def _full_float32() -> Iterator[None]:
    """Make cuDNN's convolutions use float32 instead of TF32; matrix products do so by default."""
    if not hasattr(cudnn, "conv"):  # before PyTorch 2.9
        with cudnn.flags(
            enabled=cudnn.enabled,
            benchmark=cudnn.benchmark,
            deterministic=cudnn.deterministic,
            allow_tf32=False,
        ):
            yield
        return
    before = cudnn.conv.fp32_precision
    cudnn.conv.fp32_precision = "ieee"
    try:
        yield
    finally:
        cudnn.conv.fp32_precision = before


def low_precision(device: torch.device) -> torch.dtype:
    """Return the 16-bit type for `fast` on a device.

    A CPU with float16 units uses float16: as fast as bfloat16, with errors eight times smaller.

    Raises:
        ConfigError: the device is slower in 16 bits.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    if device.type == "mps":
        return torch.float16
    if has_matrix_units(torch.float16) and can_pack(torch.float16):
        return torch.float16
    if can_pack(torch.bfloat16):
        return torch.bfloat16
    raise ConfigError(
        "runtime 'fast': this processor lacks AVX-512, without which 16-bit arithmetic is slower "
        "than 32-bit; use auto or exact"
    )


def has_matrix_units(dtype: torch.dtype) -> bool:
    """Return whether the processor multiplies matrices of a 16-bit type in hardware (AMX)."""
    unit = {torch.bfloat16: "amx_bf16", torch.float16: "amx_fp16"}[dtype]
    return bool(cpu_capabilities().get(unit, False))


def choose_device(name: str = "auto") -> torch.device:
    """Return a device by name; `auto` chooses CUDA, else Apple's MPS, else the CPU.

    Raises:
        ConfigError: this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device {name!r}: not a device; use auto, cpu, cuda, cuda:N or mps")
    cuda_missing = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    mps_missing = device.type == "mps" and not torch.backends.mps.is_available()
    if cuda_missing or mps_missing:
        raise ConfigError(f"device {name!r}: this machine has none; use auto or cpu")
    return device
