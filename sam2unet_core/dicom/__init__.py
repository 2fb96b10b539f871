"""Read DICOM studies into series of frames, and write results as DICOM objects.

Names are imported on first use, since pydicom with its decoders takes a third of a second.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sam2unet_core.dicom.read import open_study, scan

__all__ = ["open_study", "scan"]


def __getattr__(name: str) -> object:
    """Return `open_study` or `scan`."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sam2unet_core.dicom import read  # noqa: PLC0415 - see above

    return getattr(read, name)
