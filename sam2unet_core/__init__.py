"""SAM2-UNet for clinical research: network, checkpoints, training, batch inference."""

__version__ = "0.1.0"
