"""`python -m sam2unet_core.cli` is the command `sam2unet`."""

from sam2unet_core.cli.main import main

main()
