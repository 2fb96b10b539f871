"""The worker process for 3D Slicer: reads requests from stdin and writes events to stdout."""

from sam2unet_core.worker.serve import serve

__all__ = ["serve"]
