"""SAM2-UNet prepared for inference on a CPU; the torch runtime chooses it."""
