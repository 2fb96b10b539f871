"""The output formats: one class each, and the table that everything else reads.

Nothing here imports PyTorch, so that the command line and Slicer can list the formats.
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
"""Stands among the formats for those that suit each kind of input."""


def open_sinks(work: UnitWork, stack: ExitStack) -> tuple[list[Sink], list[Unfit]]:
    """Open what writes the files of a unit.

    Args:
        work: the unit and the formats asked for; none asked for means those that suit it.
        stack: gets the contexts that finish the files.

    Returns:
        the sinks, and the formats asked for that the unit cannot have.
    """
    sinks, left_out = [], []
    for name in _asked(work):
        unfit = FORMATS[name].unfit(work.unit)
        if unfit is None:
            sinks.append(FORMATS[name].open(work, stack))
        else:
            left_out.append(unfit)
    return sinks, left_out


def _asked(work: UnitWork) -> tuple[str, ...]:
    names: list[str] = []
    for name in work.settings.formats or (AUTO,):
        names += default_formats(work.unit) if name == AUTO else (name,)
    return tuple(dict.fromkeys(names))


def default_formats(unit: Unit) -> tuple[str, ...]:
    """Return what a unit gets where nothing was asked for."""
    if unit.dicom:
        return ("seg",)
    if unit.series.kind == Kind.ARRAY:
        return ("nifti",)
    return ("png", "overlay") if unit.series.kind == Kind.VIDEO else ("png",)
