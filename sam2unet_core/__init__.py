"""SAM2-UNet for clinical research: network, checkpoints, readers, writers and batch inference.

    from sam2unet_core import Segmenter, Task, SAM2UNet, open_study

These names are imported when they are used: importing the package alone takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam2unet_core.dicom import open_study
    from sam2unet_core.network import SAM2UNet
    from sam2unet_core.segmenter import Segmenter
    from sam2unet_core.task import Task

__version__ = "0.1.0"
__all__ = ["SAM2UNet", "Segmenter", "Task", "__version__", "open_study"]

_MODULES = {
    "SAM2UNet": "network",
    "Segmenter": "segmenter",
    "Task": "task",
    "open_study": "dicom",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
