"""`sam2unet phantom`: writes a dataset of drawn colonoscopy-like frames with exact masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track


def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write; new or empty.")],
    *,
    frames: Annotated[int, typer.Option(min=1, help="Number of frames.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same pictures.")] = 0,
    size: Annotated[
        tuple[int, int], typer.Option(metavar="H W", help="Height and width in pixels.")
    ] = (256, 256),
    dicom: Annotated[
        bool, typer.Option("--dicom", help="Write DICOM studies of that many frames instead.")
    ] = False,
) -> None:
    """Draw colonoscopy-like frames with exact masks, without download or patient data.

    Writes OUT/images, OUT/masks and OUT/groups.csv, ready for training; with --dicom single VL
    Endoscopic frames, a multi-frame object and an H.264 video in OUT/studies, with OUT/masks.
    """
    if dicom:
        _studies(out, frames=frames, seed=seed, size=size)
        return
    from sam2unet_core.phantom import iterate_dataset

    console = Console(stderr=True)
    with_polyp = 0
    steps = iterate_dataset(out, frames=frames, seed=seed, size=size)
    for frame in track(steps, description="Drawing", total=frames, console=console, transient=True):
        with_polyp += frame.has_polyp
    typer.echo(f"{frames} frames, {with_polyp} with a polyp: {out}")


def _studies(out: Path, *, frames: int, seed: int, size: tuple[int, int]) -> None:
    from sam2unet_core.phantom.dicom import has_video, write_studies

    studies = write_studies(out, frames=frames, seed=seed, size=size, video=has_video())
    for study in studies:
        typer.echo(f"{study.name}: {len(study.masks)} frames, {len(study.files)} files: {out}")
    if not has_video():
        typer.echo("no video: PyAV is not installed: pip install 'sam2unet[video]'", err=True)
