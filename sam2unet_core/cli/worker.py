"""`sam2unet worker`: the worker process for 3D Slicer; see docs/worker.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sam2unet_core.errors import ConfigError


def worker(
    *,
    exchange: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for arrays, readable only by you.")
    ],
    allow_root: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Allow requests to read files below it; repeatable."),
    ] = None,
    parent: Annotated[
        int | None, typer.Option(min=1, metavar="PID", help="End when this process ends.")
    ] = None,
) -> None:
    """Answer requests from standard input, one JSON object per line; 3D Slicer starts this."""
    if not exchange.is_dir():
        raise ConfigError(f"--exchange {exchange}: no such folder; create it, readable only by you")
    for folder in allow_root or ():
        if not folder.is_dir():
            raise ConfigError(f"--allow-root {folder}: no such folder")
    from sam2unet_core.worker import serve

    serve(exchange=exchange.resolve(), allow_roots=allow_root or (), parent=parent)
