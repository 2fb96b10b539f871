"""Runs `sam2unet` as `python -m sam2unet_core.cli`."""

from sam2unet_core.cli.main import main

main()
