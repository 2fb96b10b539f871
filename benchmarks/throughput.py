"""A batch run compared with the network alone: `python benchmarks/throughput.py [--frames FOLDER]`.

The batch run is what `sam2unet segment` does with a folder of images: read, resize, network, masks,
files, manifest, report, but not the start of the process. The network alone runs frame by frame on
prepared frames, with mirror images if the task averages over them. On a CPU the batch run computes
one frame on each core, so its share of the network's rate can exceed 100 %. Both take turns on the
same frames. The starter is the bundle's; `large` has random weights, which take the same time.

Without `--frames` the images are phantoms. Wall time shows how well reading and writing overlap
with the network, which needs a second core; CPU time shows their cost.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sam2unet_core.batch import Settings, run
from sam2unet_core.inference.transforms import prepare
from sam2unet_core.inputs import find_inputs
from sam2unet_core.media.image import image_files, read_image
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import save_full
from sam2unet_core.phantom import write_dataset
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.task import load_preset

SIZE = (529, 622)
"""Rows and columns of the phantoms: the commonest size in Kvasir-SEG."""
DRAWN = 8
BATCH_SIZE = 1
"""In a folder of images each image is its own unit, so batches hold one."""


def measure(quick: bool, frames: Path | None = None, runtime: str = "auto") -> list[dict[str, Any]]:
    """Return a row for each network; each is measured in a process of its own.

    `median_s` and `spread_s` are those of the batch run per frame; `ratio` is the share of the
    rate of the network alone that it reaches.

    Args:
        quick: few frames, and only the starter.
        frames: a folder of images.
        runtime: name of the runtime.
    """
    cases = {"starter": (60, 2)} if quick else {"starter": (200, 3), "large": (10, 2)}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = frames or _phantoms(Path(name, "phantoms"))
        for variant, (count, times) in cases.items():
            words = [variant, str(folder), str(count), str(times), runtime]
            done = subprocess.run(
                [sys.executable, __file__, "--case", *words],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows


def compare(variant: str, pictures: list[Path], times: int, runtime: str) -> dict[str, Any]:
    """Return the row of one network."""
    whole: list[tuple[float, float]] = []
    bare: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        segmenter = _open(variant, Path(name), runtime)
        images = [_prepared(path, segmenter) for path in pictures[:50]]
        _network(segmenter, images[:2])
        for number in range(times):
            bare.append(_timed(lambda: _network(segmenter, images), len(images)))
            out = Path(name, f"out{number}")
            whole.append(_timed(lambda out=out: _segment(segmenter, pictures, out), len(pictures)))
            bare.append(_timed(lambda: _network(segmenter, images), len(images)))
    wall, cpu = ([each[i] for each in whole] for i in (0, 1))
    bare_wall, bare_cpu = (statistics.median(each[i] for each in bare) for i in (0, 1))
    size = " x ".join(map(str, segmenter.task.image_size))
    return {
        "what": f"segment {len(pictures)} images, {variant} at {size}",
        "median_s": statistics.median(wall),
        "spread_s": max(wall) - min(wall),
        "ratio": bare_wall / statistics.median(wall),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "note": f"network alone {bare_wall:.4f} s; CPU {statistics.median(cpu):.4f} s, network "
        f"{bare_cpu:.4f} s ({bare_cpu / statistics.median(cpu):.2f}); runtime "
        f"{segmenter.runtime.name}, {_cores()} cores, {torch.get_num_threads()} threads",
    }


def _phantoms(folder: Path) -> Path:
    """Draw some frames and return a folder of them as JPEG files."""
    drawn = write_dataset(folder / "drawn", frames=DRAWN, size=SIZE)
    (folder / "jpeg").mkdir()
    for each in drawn:
        with Image.open(each.image) as image:
            image.save(folder / "jpeg" / f"{each.image.stem}.jpg", quality=92)
    return folder / "jpeg"


def _pictures(folder: Path, count: int, out: Path) -> list[Path]:
    """Return copies of `count` images; those of a small folder are repeated."""
    found = image_files(folder)
    if not found:
        raise SystemExit(f"{folder}: no images in this folder")
    out.mkdir()
    for number in range(count):
        path = found[number % len(found)]
        shutil.copyfile(path, out / f"{number:05d}{path.suffix}")
    return sorted(out.iterdir())


def _open(variant: str, folder: Path, runtime: str) -> Segmenter:
    if variant == "starter":
        return Segmenter.open(runtime=runtime)
    file = (
        folder / "weights.safetensors"
    )  # written by another process, whose memory does not count here
    subprocess.run([sys.executable, __file__, "--save", variant, str(file)], check=True)
    return Segmenter.open(task="polyp", weights=file, runtime=runtime)


def _prepared(path: Path, segmenter: Segmenter) -> Tensor:
    pixels = torch.from_numpy(read_image(path)).permute(2, 0, 1)
    return prepare(pixels[None].to(segmenter.runtime.device), segmenter.task.image_size)


@torch.inference_mode()
def _network(segmenter: Segmenter, images: list[Tensor]) -> None:
    for start in range(0, len(images), BATCH_SIZE):
        batch = torch.cat(images[start : start + BATCH_SIZE])
        if segmenter.task.flip_average:  # like the batch run
            batch = torch.cat([batch, batch.flip(-1)])
        segmenter.runtime.logits(batch).cpu()


def _segment(segmenter: Segmenter, pictures: list[Path], out: Path) -> None:
    outcome = run(
        find_inputs([pictures[0].parent], out=out),
        out,
        Settings(),
        model=segmenter.model,
    )
    if outcome.exit_code or outcome.frames != len(pictures):
        raise SystemExit(str(outcome))


def _timed(do: Callable[[], None], frames: int) -> tuple[float, float]:
    """Return the wall time and the CPU time per frame, in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    do()
    return (time.perf_counter() - wall) / frames, (time.process_time() - cpu) / frames


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=Path, help="a folder of images; by default phantoms")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--quick", action="store_true", help="60 images, only the starter")
    parser.add_argument("--case", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--save", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.save:
        variant, file = given.save
        save_full(SAM2UNet(variant), file, task=load_preset("polyp"))
        return
    if given.case:
        variant, folder, count, times, runtime = given.case
        with tempfile.TemporaryDirectory() as name:
            pictures = _pictures(Path(folder), int(count), Path(name, "pictures"))
            print(json.dumps(compare(variant, pictures, int(times), runtime)))
        return
    for row in measure(given.quick, given.frames, given.runtime):
        print(
            f"{row['what']}: {row['median_s']:.4f} s per frame (spread {row['spread_s']:.4f}), "
            f"{100 * row['ratio']:.0f} % of the network's rate, peak {row['peak_mib']:.0f} MiB\n"
            f"  {row['note']}"
        )


if __name__ == "__main__":
    main()
