"""The runtimes against the reference: time, memory, and masks.

`python -m benchmarks --only network,agreement`. The runtimes take turns in one process, so that all
are timed under the same load; peak memory is that of a process each. `large` has random weights,
which take the same time as trained ones; masks are compared with trained weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.machine import SHAPES, gigaflop, matrix_peak, peak_mib
from benchmarks.reference import ReferenceRuntime
from sam2unet_core.errors import ConfigError
from sam2unet_core.inference.cpu.packed import can_pack
from sam2unet_core.inference.engine import Engine
from sam2unet_core.inference.model import Model, Plan, choose_model, open_model, read_network
from sam2unet_core.inference.runtimes.runtime import Runtime
from sam2unet_core.inference.transforms import label_map, prepare
from sam2unet_core.media.image import image_files, read_image
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import save_full
from sam2unet_core.phantom import write_dataset
from sam2unet_core.task import load_preset

ROOT = Path(__file__).resolve().parents[1]
ALL = ("reference", "exact", "fast", "openvino", "onnx")
QUICK = ALL[:3]
FRAMES_IN_A_PROCESS = 3
FRAMES_TOGETHER = 4
TOGETHER = f"{FRAMES_TOGETHER} frames per batch"
AT_ONCE = "one frame on each core"


def measure(quick: bool, sizes: tuple[str, ...] | None = None) -> list[dict[str, Any]]:
    """Return a row for each size and runtime; `ratio` is the speed-up over the reference."""
    sizes = sizes or (("large",) if quick else ("tiny", "small", "base_plus", "large"))
    types = [torch.float32, *filter(can_pack, (torch.bfloat16, torch.float16))]
    peaks = {
        dtype: {name: matrix_peak(dtype, shape) for name, shape in SHAPES.items()}
        for dtype in types
    }
    rows = [
        _row(
            f"matrix products, {str(dtype).removeprefix('torch.')}",
            [2e-9 * 2048**3 / rates["2048 cubed"]],
            note=", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in rates.items()),
        )
        for dtype, rates in peaks.items()
    ]
    best = {str(dtype).removeprefix("torch."): max(r.values()) for dtype, r in peaks.items()}
    for variant in sizes:
        rows += _size(variant, best, rounds=4 if quick else 15, names=QUICK if quick else ALL)
    return rows


def agreement(
    quick: bool, frames: Path | None = None, weights: Path | None = None
) -> list[dict[str, Any]]:
    """Return a row for each runtime: the Dice of its masks against those of `exact`.

    Args:
        quick: 24 phantom frames instead of 100.
        frames: a folder of images instead of phantoms.
        weights: a weights file instead of the bundle's starter.
    """
    names = ("exact", *(name for name in (QUICK if quick else ALL) if name != "exact"))
    with tempfile.TemporaryDirectory() as name:
        if frames is None:
            frames = Path(name, "drawn")
            write_dataset(frames, frames=24 if quick else 100, size=(529, 622))
            frames = frames / "images"
        pictures = [read_image(path) for path in image_files(frames)]
    if not pictures:
        raise SystemExit(f"{frames}: no images in this folder")
    exact: list[NDArray[np.uint8]] = []
    rows = []
    for model in _opened(names, weights):
        runtime, engine = model.runtime, Engine(model)
        started = time.perf_counter()
        masks = [label_map(engine.probabilities(p[None])[0], model.task) for p in pictures]
        each = (time.perf_counter() - started) / len(pictures)
        exact = exact or masks
        rows.append(_row(f"masks, {runtime.name}", [each], note=compare(masks, exact)))
    return rows[1:]


def compare(masks: list[NDArray[np.uint8]], exact: list[NDArray[np.uint8]]) -> str:
    """Describe the agreement: mean and first percentile of Dice, and frames with one mask empty.

    Two empty masks count as 1; one empty mask as 0.
    """
    dice, differing = [], 0
    for found, wanted in zip(masks, exact, strict=True):
        both = int(((found == wanted) & (found > 0)).sum())
        total = int((found > 0).sum()) + int((wanted > 0).sum())
        dice.append(2 * both / total if total else 1.0)
        differing += bool(found.any()) != bool(wanted.any())
    return (
        f"Dice to exact: mean {np.mean(dice):.4f}, first percentile {np.percentile(dice, 1):.4f}; "
        f"whether the mask is empty differs in {differing} of {len(dice)} frames"
    )


def _size(
    variant: str, best: dict[str, float], *, rounds: int, names: tuple[str, ...]
) -> list[dict[str, Any]]:
    task = load_preset("polyp")
    work = gigaflop(variant, task.image_size)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, f"{variant}.safetensors")
        save_full(SAM2UNet(variant), file, task=task)
        runtimes = [model.runtime for model in _opened(names, file)]
        memory = {runtime.name: _peak(runtime.name, file) for runtime in runtimes}
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, *task.image_size), np.uint8)
    image = prepare(torch.from_numpy(pixels), task.image_size)
    times: dict[str, list[float]] = {runtime.name: [] for runtime in runtimes}
    several: dict[str, list[float]] = {TOGETHER: [], AT_ONCE: []}
    found = {}
    with torch.inference_mode():
        for number in range(rounds + 1):
            for runtime in runtimes:
                started = time.perf_counter()
                found[runtime.name] = runtime.logits(image).float().sigmoid()
                if number:  # the first round warms up
                    times[runtime.name].append(time.perf_counter() - started)
                if runtime.name == "fast":
                    together = _frames_together(runtime, image)
                    several[TOGETHER] += [together] * (number > 0)
                if runtime.name == "fast" and number and torch.get_num_threads() > 1:
                    several[AT_ONCE].append(_a_frame_on_each_core(runtime, image))
    reference = statistics.median(times["reference"])
    rows = []
    for runtime in runtimes:
        seconds = times[runtime.name]
        rate = work / statistics.median(seconds)
        change = (found[runtime.name] - found["exact"]).abs().max().item()
        note = (
            f"{runtime.precision}, {rate:.0f} GFLOP/s ({work:.1f} GFLOP), "
            f"{100 * rate / best[runtime.precision]:.0f} % of the peak; "
            f"probability within {change:.1e} of exact"
        )
        ratio = reference / statistics.median(seconds)
        what = f"{variant}, {runtime.name}"
        rows.append(_row(what, seconds, ratio=ratio, peak_mib=memory[runtime.name], note=note))
    for what, seconds in several.items():
        if seconds:
            ratio = reference / statistics.median(seconds)
            note = "seconds per frame; the reference runs frame by frame"
            rows.append(_row(f"{variant}, fast, {what}", seconds, ratio=ratio, note=note))
    return rows


def _frames_together(runtime: Runtime, image: Tensor) -> float:
    """Return the seconds per frame of several frames in one batch."""
    images = image.expand(FRAMES_TOGETHER, -1, -1, -1).contiguous()
    started = time.perf_counter()
    runtime.logits(images).float().sigmoid()
    return (time.perf_counter() - started) / FRAMES_TOGETHER


def _a_frame_on_each_core(runtime: Runtime, image: Tensor) -> float:
    """Return the seconds per frame of frames computed in parallel, one on each core."""
    cores = torch.get_num_threads()

    @torch.inference_mode()
    def compute(_: int) -> Tensor:
        return runtime.logits(image).float().sigmoid()

    with ThreadPoolExecutor(cores, "frame", torch.set_num_threads, (1,)) as pool:
        list(pool.map(compute, range(cores)))  # the first frame of a thread warms up
        started = time.perf_counter()
        list(pool.map(compute, range(2 * cores)))
        seconds = (time.perf_counter() - started) / (2 * cores)
    torch.set_num_threads(cores)
    return seconds


def _opened(names: tuple[str, ...], weights: Path | None) -> list[Model]:
    """Return models in the runtimes that this machine has; print the missing ones."""
    found = []
    for name in names:
        try:
            found.append(_open(name, weights))
        except ConfigError as error:
            print(f"skipped: {error}", file=sys.stderr)
    return found


def _open(name: str, weights: Path | None) -> Model:
    source = choose_model(weights=weights)
    if name != "reference":
        return open_model(source, runtime=name, device="cpu")
    plan = Plan("exact", torch.float32, torch.device("cpu"))
    return Model(source.task, ReferenceRuntime(read_network(source.file)), plan, source)


def _peak(name: str, file: Path) -> float:
    words = [sys.executable, "-m", "benchmarks.network", "--case", name, str(file)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return float(json.loads(done.stdout.splitlines()[-1]))


def _case(name: str, file: Path) -> float:
    """Segment a few frames and return this process's peak memory in MiB."""
    engine = Engine(_open(name, file))
    for _ in range(FRAMES_IN_A_PROCESS):
        engine.probabilities(np.zeros((1, 529, 622, 3), np.uint8))
    return peak_mib()


def _row(
    what: str,
    seconds: list[float],
    *,
    note: str,
    ratio: float | None = None,
    peak_mib: float | None = None,
) -> dict[str, Any]:
    return {
        "what": what,
        "median_s": statistics.median(seconds),
        "spread_s": max(seconds) - min(seconds),
        "range_s": [min(seconds), max(seconds)],
        "ratio": ratio,
        "peak_mib": peak_mib,
        "note": note,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs=2, required=True, metavar=("RUNTIME", "FILE"))
    runtime_name, weights_file = parser.parse_args().case
    print(json.dumps(_case(runtime_name, Path(weights_file))))
