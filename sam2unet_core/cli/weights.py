"""`sam2unet weights`: fetches and imports trunks, splits and merges weights files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from sam2unet_core.console import console

if TYPE_CHECKING:
    from sam2unet_core.network.checkpoint import WeightsInfo
    from sam2unet_core.task import Task

_Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]

weights = typer.Typer(
    help="Fetch, import, split, merge and describe weights files.", no_args_is_help=True
)


@weights.command("list")
def list_trunks() -> None:
    """List the trunks that can be downloaded and those in the cache."""
    from sam2unet_core.network.checkpoint.cache import (
        CACHE_VARIABLE,
        CATALOG,
        cache_folder,
        records,
    )

    cached = records()
    table = Table(box=box.SIMPLE, show_edge=False)
    for column in ("Name", "Network", "Trunk hash", "In the cache"):
        table.add_column(column, no_wrap=True)
    for entry in CATALOG.values():
        found = cached.pop(entry.file_name, None)
        here = found.trunk_sha256[:12] if found else ""
        table.add_row(entry.name, entry.variant.name, here, "yes" if found else "no")
    for name, record in cached.items():
        table.add_row(name, record.variant or "custom", record.trunk_sha256[:12], "yes")
    console().print(table)
    typer.echo(f"Cache: {cache_folder()}  (set {CACHE_VARIABLE} to move it)")


@weights.command("fetch")
def fetch_trunk(
    name: Annotated[str, typer.Argument(help="Name of a trunk; `list` shows them.")],
    *,
    base_url: Annotated[
        str | None, typer.Option(help="A mirror that holds NAME.pt; the official site by default.")
    ] = None,
) -> None:
    """Download a trunk of SAM2 or SAM2.1 into the cache; resumes an interrupted download."""
    from sam2unet_core.network.checkpoint.cache import find_entry
    from sam2unet_core.network.checkpoint.fetch import DownloadSource, fetch

    find_entry(name)  # fails before the bar is shown
    with _download_bar(name) as progress:
        path = fetch(name, source=DownloadSource(base_url=base_url), progress=progress)
    typer.echo(str(path))


@weights.command("import")
def import_trunk(
    file: Annotated[Path, typer.Argument(help="A file with a trunk; it can have any name.")],
) -> None:
    """Copy a trunk from a file into the cache, for machines without internet."""
    from sam2unet_core.network.checkpoint.cache import import_file, records

    before = records()
    path = import_file(file)
    if path.name in before:
        typer.echo(
            "The cache already has this trunk. If the file holds a whole network, give it with "
            "--weights, or make it smaller with `sam2unet weights split`.",
            err=True,
        )
    typer.echo(str(path))


@weights.command("split")
def split_full(
    full: Annotated[Path, typer.Argument(help="A whole network, such as the authors' file.")],
    *,
    output: _Output,
    task: Annotated[
        str | None, typer.Option(help="Task it was trained for: by name, or a task.json.")
    ] = None,
) -> None:
    """Write a whole network without its trunk as a small delta."""
    from sam2unet_core.network.checkpoint import find_trunk, split

    trunk = split(full, delta=output, task=_task(task))
    typer.echo(f"{output}: delta to the trunk {trunk}")
    if find_trunk(trunk) is None:
        typer.echo(f"This trunk is not in the cache: sam2unet weights import {full}")


@weights.command("merge")
def merge_full(
    trunk: Annotated[Path, typer.Argument(help="A file that holds the trunk.")],
    delta: Annotated[Path, typer.Argument(help="A delta to this trunk.")],
    *,
    output: _Output,
) -> None:
    """Write a whole network from a trunk and a delta."""
    from sam2unet_core.network.checkpoint import merge

    merge(trunk, delta, full=output)
    typer.echo(str(output))


@weights.command("info")
def show_info(file: Annotated[Path, typer.Argument(help="Any weights file.")]) -> None:
    """Describe a weights file."""
    from sam2unet_core.network.checkpoint import read_info

    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in _rows(read_info(file)):
        table.add_row(label, value)
    console().print(table)


def _rows(info: WeightsInfo) -> Iterator[tuple[str, str]]:
    kinds = {
        "sam2": "SAM2 or SAM2.1; only the trunk is used",
        "authors": "SAM2-UNet as published by the authors",
        "delta": "delta: all but the trunk",
        "full": "whole network",
        "state_dict": "state dict (such as MONAI's model.pt)",
        "training": "training checkpoint",
    }
    yield "File", str(info.path)
    yield "Kind", kinds[info.format]
    yield "Network", info.variant or "none of the known sizes"
    yield "Channels out", str(info.num_classes) if info.num_classes else "no decoder"
    yield "Values", f"{info.parameters:,}"
    yield "Bytes", f"{info.size:,}"
    yield "Trunk", f"{'in the file' if info.has_trunk else 'not in the file'}"
    yield "Trunk hash", info.trunk_sha256 or "unknown"
    yield "Task", f"{info.task.title} ({info.task.name})" if info.task else "unknown"
    yield "sha256", info.sha256


def _task(name_or_file: str | None) -> Task | None:
    from sam2unet_core.task import Task, load_preset

    if name_or_file is None:
        return None
    return Task.load(name_or_file) if name_or_file.endswith(".json") else load_preset(name_or_file)


@contextmanager
def _download_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar on stderr; yield the function that updates it with received and total bytes."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True)) as bar:
        shown = bar.add_task(name, total=None)
        yield lambda have, total: bar.update(shown, completed=have, total=total)
