"""Batch runs: segment folders of inputs into results, a manifest and a report.

Names are imported on first use, so that listing the formats does not import PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam2unet_core.batch.formats import FORMATS
    from sam2unet_core.batch.merging import merge
    from sam2unet_core.batch.runner import FolderRun, Outcome, Progress, run
    from sam2unet_core.batch.settings import SEG_TYPES, Settings, Shard

__all__ = [
    "FORMATS",
    "SEG_TYPES",
    "FolderRun",
    "Outcome",
    "Progress",
    "Settings",
    "Shard",
    "merge",
    "run",
]
_MODULES = {
    "FORMATS": "formats",
    "SEG_TYPES": "settings",
    "FolderRun": "runner",
    "Outcome": "runner",
    "Progress": "runner",
    "Settings": "settings",
    "Shard": "settings",
    "merge": "merging",
    "run": "runner",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
