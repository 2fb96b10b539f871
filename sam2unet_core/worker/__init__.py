"""The process that 3D Slicer talks to: requests on standard input, events on standard output."""

from sam2unet_core.worker.serve import serve

__all__ = ["serve"]
