"""The output formats: one class each, and the table of all.

Nothing here imports PyTorch, so that the command line and Slicer list the formats quickly.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from sam2unet_core.batch.formats.nifti import Nifti
from sam2unet_core.batch.formats.output_format import (
    OutputFormat,
    PictureFormat,
    Sink,
    Unfit,
)
from sam2unet_core.batch.formats.overlay import Overlay
from sam2unet_core.batch.formats.png import Png
from sam2unet_core.batch.formats.probabilities import Probabilities
from sam2unet_core.batch.formats.secondary_capture import SecondaryCapture
from sam2unet_core.batch.formats.seg import Seg
from sam2unet_core.batch.formats.structured_report import StructuredReport
from sam2unet_core.types import Kind

if TYPE_CHECKING:
    from sam2unet_core.batch.outputs import UnitWork
    from sam2unet_core.batch.units import Unit

__all__ = ["AUTO", "FORMATS", "OutputFormat", "PictureFormat", "Sink", "Unfit", "open_sinks"]

_ALL = (Seg, Png, Nifti, Overlay, Probabilities, SecondaryCapture, StructuredReport)
FORMATS: dict[str, OutputFormat] = {each.name: each() for each in _ALL}
AUTO = "auto"
"""The format name that selects the default formats for each kind of input."""


def open_sinks(work: UnitWork, stack: ExitStack) -> tuple[list[Sink], list[Unfit]]:
    """Open the sinks that write the files of a unit.

    Args:
        work: the unit and the requested formats; without any, the default ones are written.
        stack: receives the contexts that close the files.

    Returns:
        The sinks, and the requested formats that do not fit the unit.
    """
    sinks, left_out = [], []
    for name in _requested(work):
        unfit = FORMATS[name].unfit(work.unit)
        if unfit is None:
            sinks.append(FORMATS[name].open(work, stack))
        else:
            left_out.append(unfit)
    return sinks, left_out


def _requested(work: UnitWork) -> tuple[str, ...]:
    names: list[str] = []
    for name in work.settings.formats or (AUTO,):
        names += default_formats(work.unit) if name == AUTO else (name,)
    return tuple(dict.fromkeys(names))


def default_formats(unit: Unit) -> tuple[str, ...]:
    """Return the default formats of a unit."""
    if unit.dicom:
        return ("seg",)
    if unit.series.kind == Kind.ARRAY:
        return ("nifti",)
    return ("png", "overlay") if unit.series.kind == Kind.VIDEO else ("png",)
