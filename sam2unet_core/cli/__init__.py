"""The command-line application `sam2unet`: one module per command."""

from sam2unet_core.cli.main import app

__all__ = ["app"]
