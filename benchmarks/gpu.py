"""Speed and memory of each size and of training on a GPU: `python -m benchmarks --only gpu`.

Frames are already on the GPU, and the work is queued. float32 means without TensorFloat-32, which
PyTorch by default uses for convolutions. The batch size doubles up to 256 or until memory runs out.
Compiled networks and CUDA graphs, which no runtime uses, show whether one should.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from benchmarks.machine import gigaflop
from benchmarks.reference import ReferenceNetwork
from benchmarks.training import build, step
from sam2unet_core.inference.runtimes.torch_runtime import TorchRuntime, low_precision
from sam2unet_core.network import SAM2UNet
from sam2unet_core.task import load_preset

SIZES = ("tiny", "small", "base_plus", "large")
IMAGE = load_preset("polyp").image_size
INFERENCE = ("reference", "exact", "fast", "fast, compiled", "fast, CUDA graph")
TRAINING = ("reference", "bfloat16+trunk", "bfloat16+trunk+half")
MOST_AT_ONCE = 256
SECONDS = 1.0
"""Least time for which each measurement is repeated."""

Work = Callable[[], object]
Found = dict[int, tuple[list[float], float]]
"""By batch size: the seconds of each repetition, and the peak memory in MiB."""


def measure(
    quick: bool, device: torch.device | None = None, sizes: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Return rows for each size; `ratio` is the speed-up over the reference.

    Args:
        quick: only `large`, batches of up to 8 frames.
        device: by default the first GPU; without a GPU, there are no rows.
        sizes: sizes of the network instead of these.
    """
    if device is None and not torch.cuda.is_available():
        print("skipped: PyTorch finds no GPU", file=sys.stderr)
        return []
    device = device or torch.device("cuda")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    # A row called compiled must be compiled.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    most = 8 if quick else MOST_AT_ONCE
    peaks = {dtype: _matrix_peak(device, dtype) for dtype in (torch.float32, low_precision(device))}
    rows = [
        {**_row("matrix products", [seconds]), "note": f"{dtype}, {rate:.0f} GFLOP/s"}
        for dtype, (rate, seconds) in peaks.items()
    ]
    for variant in sizes or (SIZES[-1:] if quick else SIZES):
        rows += _inference(variant, device, most, {d: rate for d, (rate, _) in peaks.items()})
        rows += _training(variant, device, most)
    return rows


def _inference(
    variant: str, device: torch.device, most: int, peaks: dict[torch.dtype, float]
) -> list[dict[str, Any]]:
    """Return two rows for each of `INFERENCE`: one frame, and the batch of least time per frame."""
    rows: list[dict[str, Any]] = []
    reference: Found = {}
    for way in INFERENCE:
        if device.type == "cpu" and way in INFERENCE[-2:]:  # for a test
            continue
        torch.compiler.reset()  # code compiled for other sizes counts towards a limit
        with torch.inference_mode():
            found = _tried(f"{variant}, {way}", partial(_forward, variant, way), device, most)
        if not found:
            continue
        reference = reference or found
        rows.append(_best(f"{variant}, {way}", {1: found[1]}, {1: reference[1]}))
        rows.append(_best(f"{variant}, {way}", found, reference))
        rate = gigaflop(variant, IMAGE) / rows[-1]["median_s"]
        dtype = torch.float32 if way in ("reference", "exact") else low_precision(device)
        rows[-1]["note"] += f"; {100 * rate / peaks[dtype]:.0f} % of the peak"
    return rows


def _training(variant: str, device: torch.device, most: int) -> list[dict[str, Any]]:
    """Return a row for each of `TRAINING`: the batch of least time per image."""
    rows = []
    reference: Found = {}
    for way in TRAINING:
        what = f"training, {variant}, {way}"
        found = _tried(what, partial(_trained, variant, way), device, most)
        if found:
            reference = reference or found
            rows.append(_best(what, found, reference))
    return rows


def _trained(variant: str, way: str, device: torch.device) -> Callable[[Tensor], Work]:
    """Return a function from `(N, 3, h, w)` images to a training step to be timed."""
    network, optimizer = build(way, variant, device=str(device))

    def work(images: Tensor) -> Work:
        masks = (images[:, :1] > 0).float()
        return lambda: step(way, network, optimizer, images, masks)

    return work


def _forward(variant: str, way: str, device: torch.device) -> Callable[[Tensor], Work]:
    """Return a function from `(N, 3, h, w)` float32 images to the work to be timed."""
    torch.manual_seed(0)
    network: nn.Module = SAM2UNet(variant).eval()
    if way == "reference":
        return partial(partial, ReferenceNetwork(network).eval().to(device))
    dtype = torch.float32 if way == "exact" else low_precision(device)
    runtime = TorchRuntime(
        network, size=load_preset("polyp").image_size, device=device, dtype=dtype
    )
    if way == "fast, compiled":
        runtime.network = torch.compile(runtime.network)
    if way == "fast, CUDA graph":
        return partial(_recorded, runtime)
    return partial(partial, runtime.logits)


def _recorded(runtime: TorchRuntime, images: Tensor) -> Work:
    """Record the kernels of a batch once; return a function that replays them."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries initialise before the recording
        for _ in range(3):
            runtime.logits(images)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        runtime.logits(images)
    replay: Work = graph.replay
    return replay


def _tried(
    what: str, prepare: Callable[[torch.device], Callable[[Tensor], Work]], device: torch.device,
    most: int,
) -> Found:  # fmt: skip
    """Time one configuration; if it fails, print why and keep the results of the others."""
    try:
        return _batches(prepare(device), device, most)
    except Exception as error:
        if device.type == "cpu":
            raise
        print(f"skipped: {what}: {error}", file=sys.stderr)
        return {}


def _batches(work: Callable[[Tensor], Work], device: torch.device, most: int) -> Found:
    """Time batches of 1, 2, 4, ... frames until memory runs out."""
    found: Found = {}
    batch = 1
    while batch <= most:
        timer = images = None  # frees the memory of a recorded graph before the next one
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        try:
            images = torch.randn(batch, 3, *IMAGE, device=device)
            timer = Timer("work()", globals={"work": work(images)})  # waits for the GPU
            timer.timeit(1)  # compiles, and initialises libraries
            found[batch] = timer.blocked_autorange(min_run_time=SECONDS).times, _memory(device)
        except RuntimeError as error:
            if not found or not _memory_ran_out(error):
                raise
            break
        batch *= 2
    return found


def _memory_ran_out(error: RuntimeError) -> bool:
    words = ("out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def _memory(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0


def _best(what: str, found: Found, reference: Found) -> dict[str, Any]:
    """Return the row of the batch with the least median time per frame."""
    each = {batch: median(times) / batch for batch, (times, _) in found.items()}
    batch = min(each, key=lambda batch: each[batch])
    row = _row(f"{what}, batch {batch}", [taken / batch for taken in found[batch][0]])
    row["ratio"] = min(median(t) / number for number, (t, _) in reference.items()) / each[batch]
    row["peak_mib"] = found[batch][1]
    row["note"] = ", ".join(
        f"{batch}: {1 / each[batch]:.1f}/s, {mib:.0f} MiB" for batch, (_, mib) in found.items()
    )
    return row


def _matrix_peak(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Return the rate of a product of two large matrices in GFLOP/s, and its time in seconds."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    timer = Timer("a @ b", globals={"a": a, "b": b})
    seconds = min(timer.blocked_autorange(min_run_time=SECONDS).times)
    return 2e-9 * side**3 / seconds, seconds


def _row(what: str, seconds: list[float]) -> dict[str, Any]:
    return {
        "what": what,
        "median_s": median(seconds),
        "spread_s": max(seconds) - min(seconds),
        "range_s": [min(seconds), max(seconds)],
        "ratio": None,
        "peak_mib": None,
        "note": "",
    }
