"""Batch runs: folders of inputs in, results, a manifest and a report out."""

from sam2unet_core.batch.bundle import FolderRun
from sam2unet_core.batch.merge import merge
from sam2unet_core.batch.outcome import Outcome, Progress
from sam2unet_core.batch.run import run
from sam2unet_core.batch.settings import FORMATS, SEG_TYPES, Model, Settings, Shard

__all__ = [
    "FORMATS",
    "SEG_TYPES",
    "FolderRun",
    "Model",
    "Outcome",
    "Progress",
    "Settings",
    "Shard",
    "merge",
    "run",
]
