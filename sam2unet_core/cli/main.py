"""The application: names the commands, turns expected errors into one line."""

from __future__ import annotations

import importlib
import sys

import typer
from rich.console import Console

from sam2unet_core.errors import SAM2UNetError

COMMANDS = (
    "tasks",
    "weights",
    "phantom",
    "train",
    "evaluate",
    "segment",
    "send",
    "worker",
    "demo",
    "doctor",
)
"""A command NAME lives in `sam2unet_core.cli.NAME` and registers itself with `register(app)`.

These modules import torch or MONAI inside their functions only, so `--help` stays fast.
"""

app = typer.Typer(
    name="sam2unet",
    help="Segment medical images with SAM2-UNet. Research software, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

for _name in COMMANDS:
    importlib.import_module(f"sam2unet_core.cli.{_name}").register(app)


def main() -> None:
    """Run the command line; an expected error is one line on stderr and exit code 2."""
    try:
        app()
    except SAM2UNetError as error:
        Console(stderr=True, soft_wrap=True).print(f"Error: {error}", style="red", markup=False)
        sys.exit(2)
