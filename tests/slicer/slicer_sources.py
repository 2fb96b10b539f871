"""Slicer's own Python, from a checkout of its sources where there is one.

No package holds it, and none of it is in this repository. Where the environment variable
SLICER_SOURCE names a checkout of https://github.com/Slicer/Slicer (two of its folders are enough),
the tests of this folder run over the original parameter node wrapper, base classes of scripted
modules, `slicer.util`, translations, base class of DICOM plug-ins and Sample Data module, with
PySide6 under them. `docs/slicer.md` has the commands.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import slicer

WRAPPER = "slicer.parameterNodeWrapper"
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


def checkout() -> Path | None:
    """Return the checkout that SLICER_SOURCE names; None without the variable.

    Raises:
        FileNotFoundError: the variable names something else.
    """
    named = os.environ.get("SLICER_SOURCE")
    if not named:
        return None
    folder = Path(named)
    for part in ("Base/Python/slicer/ScriptedLoadableModule.py", "Modules/Scripted/DICOMLib"):
        if not (folder / part).exists():
            raise FileNotFoundError(f"SLICER_SOURCE: {folder} has no {part}")
    return folder


@contextlib.contextmanager
def originals(folder: Path, ctk: types.ModuleType) -> Iterator[None]:
    """Make Slicer's own modules importable over the stand-ins of Qt and CTK; undo it at the end.

    Args:
        folder: as `checkout` returned it.
        ctk: the stand-in, already importable under this name, as `qt` is.
    """
    for owner, names in ((ctk, _CTK), (slicer, _QMRML)):
        for name in names:
            if not hasattr(owner, name):
                setattr(owner, name, type(name, (), {}))
    base = folder / "Base" / "Python" / "slicer"
    paths = {
        "slicer.i18n": base / "i18n.py",
        "slicer.ScriptedLoadableModule": base / "ScriptedLoadableModule.py",
        WRAPPER: base / "parameterNodeWrapper" / "__init__.py",
        "DICOMLib": folder / "Modules" / "Scripted" / "DICOMLib" / "DICOMPlugin.py",
    }
    names = [each for each in sys.modules if _is_of(each, paths)]
    before = {name: sys.modules.pop(name) for name in names}
    try:
        for name, path in paths.items():
            _load(name, path)
        yield
    finally:
        for name in [each for each in sys.modules if _is_of(each, paths)]:
            del sys.modules[name]
        sys.modules.update(before)


def _is_of(name: str, paths: dict[str, Path]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in paths)


def _load(name: str, path: Path) -> None:
    places = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=places)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if name.startswith("slicer."):
        setattr(slicer, name.removeprefix("slicer."), module)
    spec.loader.exec_module(module)
