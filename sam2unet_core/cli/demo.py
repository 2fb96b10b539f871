"""`sam2unet demo`."""

import typer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
