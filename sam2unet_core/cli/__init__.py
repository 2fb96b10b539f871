"""The command `sam2unet`; each command is a file of this package."""

from sam2unet_core.cli.main import app

__all__ = ["app"]
