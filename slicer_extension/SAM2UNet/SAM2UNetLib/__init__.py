"""The library of the module "Segment with SAM2-UNet"; nothing here imports PyTorch."""
