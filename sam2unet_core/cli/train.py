"""`sam2unet train`: prints and runs the bundle's training."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from sam2unet_core.task import Task, installed_bundle, load_preset


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(train)


def train(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="Folder with images/ and masks/.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    task: Annotated[
        str, typer.Option(help="A task's name (`sam2unet tasks` lists them) or a task.json.")
    ] = "polyp",
    variant: Annotated[str, typer.Option(help="Size of the network.")] = "large",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run.")] = False,
) -> None:
    """Train SAM2-UNet on images and masks, through the MONAI bundle.

    Any other setting of the bundle's train.yaml can follow, such as `--epochs 50`.
    """
    options = {"dataset_dir": str(data), "output_dir": str(output), "variant": variant}
    overlay = None
    if task.endswith(".json"):
        Task.load(task)
        options["task"] = task
    else:
        load_preset(task)
        overlay = f"tasks/{task}.yaml"
    if resume:
        options["resume"] = "True"
    command = bundle_command("train.yaml", "training", options, overlay=overlay)
    command += context.args
    typer.echo(shlex.join(command))
    raise typer.Exit(subprocess.run(command, check=False).returncode)


def bundle_command(
    config: str, run_id: str, options: dict[str, str], *, overlay: str | None = None
) -> list[str]:
    """Return the line that runs a configuration of the installed bundle.

    Args:
        config: file in the bundle's `configs`.
        run_id: what of it to run.
        options: overrides, by key.
        overlay: a second file, merged over the first.
    """
    configs = installed_bundle() / "configs"
    files = [str(configs / name) for name in (config, overlay) if name]
    command = [sys.executable, "-m", "monai.bundle", "run", run_id]
    command += ["--config_file", str(files) if overlay else files[0]]
    for key, value in options.items():
        command += [f"--{key}", value]
    return command
