"""`sam2unet phantom`: write a data set of drawn colonoscopy-like frames with exact masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("phantom")(phantom)


def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write; new or empty.")],
    *,
    frames: Annotated[int, typer.Option(min=1, help="How many frames.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same pictures.")] = 0,
    size: Annotated[
        tuple[int, int], typer.Option(metavar="H W", help="Height and width in pixels.")
    ] = (256, 256),
) -> None:
    """Draw colonoscopy-like frames with exact masks: no download, no patient data.

    Writes OUT/images, OUT/masks and OUT/groups.csv, ready for training.
    """
    from sam2unet_core.phantom import iterate_dataset

    console = Console(stderr=True)
    with_polyp = 0
    steps = iterate_dataset(out, frames=frames, seed=seed, size=size)
    for frame in track(steps, description="Drawing", total=frames, console=console, transient=True):
        with_polyp += frame.has_polyp
    typer.echo(f"{frames} frames, {with_polyp} with a polyp: {out}")
