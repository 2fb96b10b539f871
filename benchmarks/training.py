"""One training step against the reference: `python -m benchmarks --only training`.

A step is forward pass, loss, backward pass and AdamW, at batch 2 with a frozen trunk and random
weights. The `WAYS` take turns in separate processes. None imports MONAI, which adds 420 MiB to
each. bfloat16 is autocast with channels last, as in `PrecisionInferer`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.machine import peak_mib
from benchmarks.reference import ReferenceNetwork
from sam2unet_core.inference.transforms import prepare
from sam2unet_core.losses import DeepSupervisionLoss, StructureLoss
from sam2unet_core.media.image import read_image
from sam2unet_core.monai_parts.cpu_attention import attend_fast_on_cpu
from sam2unet_core.network import SAM2UNet
from sam2unet_core.phantom import write_dataset

ROOT = Path(__file__).resolve().parents[1]
WAYS = {
    "reference": "float32, eager, contiguous",
    "float32": "channels last, another summation order",
    "bfloat16": "autocast, channels last",
    "bfloat16+trunk": "as above, and the frozen trunk's matrices in bfloat16",
    "bfloat16+trunk+recompute": "as above, and the activations of all trunk blocks recomputed",
    "bfloat16+trunk+half": "as bfloat16+trunk, and those of the finer half recomputed",
}
SIZE = (352, 352)
BATCH = 2
FRAMES = 16
STEPS = 50
LEARNING_RATES = (4e-4, 1e-3)
"""Losses are compared at both; the second is the published rate."""
SMOOTHED = FRAMES // BATCH


def measure(quick: bool, variant: str = "large") -> list[dict[str, Any]]:
    """Return a row for each of `WAYS`; `ratio` is the speed-up over the reference.

    Args:
        quick: one process each, without the comparison of losses.
        variant: size of the network.
    """
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(1 if quick else 3):
        for way in WAYS:
            runs[way].append(_in_a_process(way, variant, 2 if quick else 4))
    rows, reference = [], statistics.median(_seconds(runs["reference"]))
    memory = max(run["peak_mib"] for run in runs["reference"])
    for way, found in runs.items():
        seconds = _seconds(found)
        peak = max(run["peak_mib"] for run in found)
        rows.append(
            {
                "what": f"training step, {variant}, {way}",
                "median_s": statistics.median(seconds),
                "spread_s": max(seconds) - min(seconds),
                "range_s": [min(seconds), max(seconds)],
                "ratio": reference / statistics.median(seconds),
                "peak_mib": peak,
                "note": f"{WAYS[way]}; {peak / memory:.2f} of the reference's memory",
            }
        )
    if not quick:
        for rate in LEARNING_RATES:
            wanted = _in_a_process("reference", variant, STEPS, rate)["losses"]
            for row, way in zip(rows[1:], list(WAYS)[1:], strict=True):
                losses = _in_a_process(way, variant, STEPS, rate)["losses"]
                row["note"] += f"; at {rate:g} {compare(losses, wanted)}"
    return rows


def compare(losses: list[float], reference: list[float]) -> str:
    """Describe how far two loss curves, smoothed over an epoch, differ, and how far each falls."""
    window = np.ones(SMOOTHED) / SMOOTHED
    ours, theirs = (np.convolve(each, window, "valid") for each in (losses, reference))
    apart = np.abs(ours / theirs - 1).max()
    fall, expected = (100 * (1 - each[-1] / each[0]) for each in (ours, theirs))
    return (
        f"over {len(losses)} steps the loss is within {100 * apart:.2f} % and falls by "
        f"{fall:.0f} % (reference {expected:.0f} %)"
    )


def run(way: str, variant: str, steps: int, learning_rate: float) -> dict[str, Any]:
    """Train for `steps` steps; return the seconds and loss of each, and the peak memory in MiB."""
    torch.manual_seed(0)
    network, optimizer = build(way, variant, learning_rate=learning_rate)
    images, masks = _data()
    order = torch.Generator().manual_seed(0)
    seconds, losses = [], []
    for number in range(steps):
        if number % SMOOTHED == 0:
            shuffled = torch.randperm(FRAMES, generator=order)
        chosen = shuffled[number % SMOOTHED * BATCH :][:BATCH]
        started = time.perf_counter()
        loss = step(way, network, optimizer, images[chosen], masks[chosen])
        seconds.append(time.perf_counter() - started)
        losses.append(loss.item())
    return {"seconds": seconds, "losses": losses, "peak_mib": peak_mib()}


def build(
    way: str, variant: str, *, learning_rate: float = LEARNING_RATES[-1], device: str = "cpu"
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a network in training mode, its trunk frozen, and its optimiser."""
    share = 1.0 if "recompute" in way else 0.5 * ("half" in way)
    plain = SAM2UNet(variant, train_trunk=False, gradient_checkpointing=share)
    network: nn.Module = plain.train()
    if way == "reference":
        network = ReferenceNetwork(plain)
    else:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if "trunk" in way:
        for parameter in network.parameters():
            if not parameter.requires_grad and parameter.ndim == 2:
                parameter.data = parameter.data.bfloat16()
    network.to(device)
    if way != "reference":
        attend_fast_on_cpu(network)
    moving = [p for p in network.parameters() if p.requires_grad]
    return network, torch.optim.AdamW(moving, lr=learning_rate, weight_decay=5e-4)


def step(
    way: str, network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, masks: Tensor
) -> Tensor:
    """Train on a batch of `(N, 3, h, w)` images and `(N, 1, h, w)` masks; return the loss."""
    loss_function = DeepSupervisionLoss(StructureLoss())
    with torch.autocast(images.device.type, torch.bfloat16, enabled="bfloat16" in way):
        maps = network(images)
    loss: Tensor = loss_function([each.float() for each in maps], masks)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def _data() -> tuple[Tensor, Tensor]:
    """Return phantom frames `(16, 3, 352, 352)`, normalised, and masks `(16, 1, 352, 352)`."""
    with tempfile.TemporaryDirectory() as name:
        written = write_dataset(Path(name, "drawn"), frames=FRAMES, size=SIZE)
        frames = np.stack([read_image(each.image) for each in written])
        masks = np.stack([read_image(each.mask)[..., 0] > 0 for each in written])
    images = prepare(torch.from_numpy(frames).permute(0, 3, 1, 2), SIZE)
    return images.contiguous(), torch.from_numpy(masks).float()[:, None]


def _in_a_process(
    way: str, variant: str, steps: int, learning_rate: float = LEARNING_RATES[-1]
) -> dict[str, Any]:
    words = [sys.executable, "-m", "benchmarks.training", way, variant]
    words += [str(steps), str(learning_rate)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _seconds(runs: list[dict[str, Any]]) -> list[float]:
    """Return the seconds of each step except the first of a process, which warms up."""
    return [each for run in runs for each in run["seconds"][1:]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("variant")
    parser.add_argument("steps", type=int)
    parser.add_argument("learning_rate", type=float)
    given = parser.parse_args()
    print(json.dumps(run(given.way, given.variant, given.steps, given.learning_rate)))
