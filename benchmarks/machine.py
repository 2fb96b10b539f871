"""A description of the machine, and its rate of matrix products."""

from __future__ import annotations

import datetime
import functools
import os
import platform
import resource
import sys
import time
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sam2unet_core.network import SAM2UNet

SHAPES = {"2048 cubed": (2048, 2048, 2048), "of the network": (484, 576, 2304)}
"""Rows, inner size and columns of the products; the second is the commonest in `large` at 352."""
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_fp16")


def describe() -> str:
    """Return three lines: processor and its flags; cores, threads and versions; date."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text(encoding="utf-8").splitlines()
        pairs = (line.partition(":") for line in lines)
        entries = {key.strip(): value.strip() for key, _, value in pairs}
        name, flags = entries.get("model name", name), set(entries.get("flags", "").split())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{name}: {' '.join(flag for flag in _FLAGS if flag in flags) or 'flags unknown'}\n"
        f"{cores} cores, {torch.get_num_threads()} threads of PyTorch {torch.__version__}, "
        f"Python {platform.python_version()}, {platform.system()}\n"
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"
    )


def peak_mib() -> float:
    """Return the peak memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # `getrusage` on Linux starts at the parent's peak
        held = status.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]
        return int(held) / 1024
    unit = 2**20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def matrix_peak(dtype: torch.dtype, shape: tuple[int, int, int], *, rounds: int = 20) -> float:
    """Return the highest measured rate of a product, in GFLOP/s (two per multiply-add)."""
    rows, inner, columns = shape
    a, b = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
    fastest = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        torch.mm(a, b)
        fastest = min(fastest, time.perf_counter() - started)
    return 2e-9 * rows * inner * columns / fastest


@functools.cache
def gigaflop(variant: str, size: tuple[int, int]) -> float:
    """Return the work on one image, in GFLOP (two per multiply-add).

    This counts the convolutions and matrix products of the plain network, whose linear layers see
    real tokens only. Attention counts as two products over whole windows, padding included.
    """
    with torch.device("meta"):
        network = SAM2UNet(variant).eval()
        image = torch.empty(1, 3, *size)
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        network(image)
    return float(counter.get_total_flops()) / 1e9
