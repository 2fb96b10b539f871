"""Synthetic colonoscopy frames and volumes with exact masks, drawn from a seed."""

from sam2unet_core.phantom.dataset import WrittenFrame, iterate_dataset, write_dataset
from sam2unet_core.phantom.frame import draw_frame
from sam2unet_core.phantom.scene import EMPTY_FRACTION, SHAPES, Patient, Polyp, draw_texture
from sam2unet_core.phantom.volume import draw_volume

__all__ = [
    "EMPTY_FRACTION",
    "SHAPES",
    "Patient",
    "Polyp",
    "WrittenFrame",
    "draw_frame",
    "draw_texture",
    "draw_volume",
    "iterate_dataset",
    "write_dataset",
]
