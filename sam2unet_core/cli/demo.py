"""`sam2unet demo`: training, evaluation and segmentation on drawn frames."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from sam2unet_core.cli.train import bundle_command
from sam2unet_core.errors import DataError
from sam2unet_core.task import load_preset

FRAMES_TO_LEARN, FRAMES_TO_TEST = 240, 40
STUDY_FRAMES = 20
IMAGE_SIZE = (192, 192)
SETTINGS = {
    "variant": "nano",
    "epochs": 10,
    "batch_size": 8,
    "learning_rate": 0.002,
    "precision": "float32",
    "cache_rate": 1.0,
    "num_workers": 0,
}
"""Settings small enough for two cores; real trainings use the defaults of train.yaml."""


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the results; must not exist.")
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Seed of frames and training.")] = 0,
) -> None:
    """Draw frames, train a small network on them, evaluate it, segment new frames.

    Takes a few minutes on two cores and downloads nothing.
    """
    if output.exists():
        raise DataError(f"{output}: already exists; remove it or give another folder with -o")
    started = time.monotonic()
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    learn, test = output / "learn", output / "test"
    _draw(learn, FRAMES_TO_LEARN, seed=seed)
    _draw(test, FRAMES_TO_TEST, seed=seed + 1)
    task = replace(load_preset("polyp"), title="Phantom polyp (demo)", image_size=IMAGE_SIZE)
    task.save(output / "task.json")

    _run(
        console,
        "Training a small network on the drawn frames",
        bundle_command(
            "train.yaml",
            "training",
            {
                "dataset_dir": str(learn),
                "groups": str(learn / "groups.csv"),
                "task": str(output / "task.json"),
                "output_dir": str(output / "training"),
                "seed": seed,
                **SETTINGS,
            },
        ),
    )
    weights: dict[str, object] = {"weights": str(output / "training" / "model.safetensors")}
    measured: dict[str, object] = {"dataset_dir": str(test), "groups": str(test / "groups.csv")}
    _run(
        console,
        "Evaluating it on frames of other patients",
        bundle_command(
            "evaluate.yaml",
            "evaluating",
            measured | weights | {"output_dir": str(output / "evaluation")},
        ),
    )
    _run(
        console,
        "Segmenting frames without masks",
        bundle_command(
            "inference.yaml",
            "inference",
            {"dataset_dir": str(test / "images"), "output_dir": str(output / "masks")} | weights,
        ),
    )
    _segment_studies(console, output, seed=seed + 2)
    summary = json.loads((output / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    _show(console, output, summary, minutes=(time.monotonic() - started) / 60)


def _draw(folder: Path, frames: int, *, seed: int) -> None:
    from sam2unet_core.phantom import iterate_dataset

    written = iterate_dataset(folder, frames=frames, seed=seed)
    for _ in track(written, f"Drawing {frames} frames", total=frames, console=Console(stderr=True)):
        pass


def _segment_studies(console: Console, output: Path, *, seed: int) -> None:
    """Draw DICOM studies and segment them."""
    from sam2unet_core.phantom.dicom import has_video, write_studies

    drawn = output / "dicom"
    write_studies(drawn, frames=STUDY_FRAMES, seed=seed, size=IMAGE_SIZE, video=has_video())
    _run(
        console,
        "Segmenting DICOM studies",
        [
            *(sys.executable, "-m", "sam2unet_core", "segment"),
            *(str(drawn / "studies"), "-o", str(output / "results")),
            *("--weights", str(output / "training" / "model.safetensors")),
        ],
    )


def _run(console: Console, title: str, command: list[str]) -> None:
    console.rule(title, align="left")
    console.print(shlex.join(["python", *command[1:]]), style="dim")
    # MONAI warns about untrusted configurations; this one is part of the package
    environment = os.environ | {"PYTHONWARNINGS": "ignore:parsing config_file:UserWarning"}
    finished = subprocess.run(command, env=environment, check=False)
    if finished.returncode:
        message = f"Stopped: the last step failed with exit code {finished.returncode}"
        console.print(message, style="red")
        sys.exit(1)


def _show(console: Console, output: Path, summary: dict[str, Any], *, minutes: float) -> None:
    console.rule("Done", align="left")
    dice = summary["classes"]["polyp"]["scores"]["dice"]
    console.print(
        f"Mean Dice on {dice['count']} unseen drawn frames: {dice['mean']:.3f} "
        f"(95 % interval {dice['low']:.3f} to {dice['high']:.3f})",
        style="bold",
    )
    rows = {
        "frames and masks drawn": output / "learn",
        "training curve": output / "training" / "curve.png",
        "validation frames": output / "training" / "validation.png",
        "network": output / "training" / "model.safetensors",
        "table of the evaluation": output / "evaluation" / "metrics.csv",
        "masks of new frames": output / "masks",
        "DICOM studies and their DICOM SEG": output / "results",
        "report, to open in a browser": output / "results" / "report.html",
    }
    for name, path in rows.items():
        console.print(f"  {name}: {path}")
    console.print(f"Took {minutes:.1f} minutes. Drawn frames say nothing about real ones.")
