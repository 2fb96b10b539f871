"""Slicer's own `parameterNodeWrapper`, from a checkout of its sources where there is one.

No wheel holds it, and none of it is in this repository. Where the environment variable
SLICER_SOURCES names a checkout of https://github.com/Slicer/Slicer (the folder Base/Python is
enough), the tests of this folder run over the original:

    git clone --depth 1 --filter=blob:none --sparse https://github.com/Slicer/Slicer
    git -C Slicer sparse-checkout set Base/Python
    SLICER_SOURCES=$PWD/Slicer python -m pytest tests/slicer
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from pathlib import Path

import slicer

NAME = "slicer.parameterNodeWrapper"
_CTK = (
    "ctkCheckBox",
    "ctkCheckablePushButton",
    "ctkColorPickerButton",
    "ctkComboBox",
    "ctkDirectoryButton",
    "ctkDoubleRangeSlider",
    "ctkDoubleSlider",
    "ctkDoubleSpinBox",
    "ctkRangeWidget",
)
_QMRML = ("qMRMLRangeWidget", "qMRMLSliderWidget", "qMRMLSpinBox", "qSlicerWidget")
"""Widgets that the original knows and our panel does not use: empty classes stand for them."""


def original_sources() -> Path | None:
    """Return the original's folder; None where there is no checkout.

    Raises:
        FileNotFoundError: the variable names something else.
    """
    named = os.environ.get("SLICER_SOURCES")
    if not named:
        return None
    folder = Path(named) / "Base" / "Python" / "slicer" / "parameterNodeWrapper"
    if not (folder / "wrapper.py").is_file():
        raise FileNotFoundError(f"SLICER_SOURCES: no {folder.name} in Base/Python/slicer there")
    return folder


def load_original(folder: Path, modules: dict[str, types.ModuleType]) -> types.ModuleType:
    """Import the original over the stand-ins of Qt and CTK.

    Args:
        folder: as `original_sources` returned it.
        modules: `qt` and `ctk`, already importable under these names.
    """
    for owner, names in ((modules["ctk"], _CTK), (slicer, _QMRML)):
        for name in names:
            if not hasattr(owner, name):
                setattr(owner, name, type(name, (), {}))
    for name in [each for each in sys.modules if each.partition(f"{NAME}.")[1] or each == NAME]:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location(
        NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module
