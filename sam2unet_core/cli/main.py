"""The application: finds the commands and shows expected errors as one line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import typer
from typer.core import TyperGroup

from sam2unet_core.console import console, error_line, escape_what_cannot_be_shown
from sam2unet_core.errors import ConfigError, SAM2UNetError

COMMANDS = (
    "tasks",
    "phantom",
    "train",
    "evaluate",
    "segment",
    "send",
    "worker",
    "demo",
    "doctor",
    "weights",
)
"""A command NAME is the function, or typer's application, `sam2unet_core.cli.NAME.NAME`.

A module is imported when its command is used, all of them for `--help`; they import torch or MONAI
inside their functions only.
"""
SETTINGS = {"train": {"allow_extra_args": True, "ignore_unknown_options": True}}
"""Settings of commands: `train` passes options that it does not know on to the bundle."""


class ImportedCommands(Mapping[str, Any]):
    """The commands by name; each access imports the command's module."""

    def __getitem__(self, name: str) -> Any:
        """Return typer's command, or click's."""
        if name not in COMMANDS:
            raise KeyError(name)
        command = getattr(importlib.import_module(f"sam2unet_core.cli.{name}"), name)
        one = typer.Typer()
        if isinstance(command, typer.Typer):
            one.add_typer(command, name=name)
        else:
            one.command(name, context_settings=SETTINGS.get(name))(command)
        return typer.main.get_group(one).commands[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, without import."""
        return iter(COMMANDS)

    def __len__(self) -> int:
        """Return their number."""
        return len(COMMANDS)


class Commands(TyperGroup):
    """The group of all commands; rejects empty arguments."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings | {"commands": ImportedCommands()})

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # typer's context, or click's
        """Parse the command line.

        Raises:
            ConfigError: an argument is empty. As a path, it would mean the working directory.
        """
        for before, word in zip(["", *args], args, strict=False):
            option, equals, value = word.partition("=")
            if not word.strip() or (equals and option[:1] == "-" and not value.strip()):
                after = f" after {before}" if not word.strip() and before else f" after {option}"
                raise ConfigError(f"empty argument{after}; check the variables of your shell")
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Commands,
    name="sam2unet",
    help="Segment medical images with SAM2-UNet. Research software, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


@app.callback()
def _group() -> None:
    pass  # without a callback, typer makes no group of an application without commands


def main() -> None:
    """Run the command line; an expected error is one line on stderr and exit code 2."""
    escape_what_cannot_be_shown()
    try:
        app()
    except (SAM2UNetError, OSError) as error:
        message = error_line(error)
        if message is None:
            raise
        console(stderr=True, soft_wrap=True).print(message, style="red")
        sys.exit(2)
