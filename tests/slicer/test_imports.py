"""The module's scripts import nothing that Slicer does not have; its logic imports no Qt."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

EXTENSION = Path(__file__).resolve().parents[2] / "slicer_extension"
LIBRARY = EXTENSION / "SAM2UNet" / "SAM2UNetLib"
PANEL = {
    "BatchPanel",
    "ClipDialog",
    "EnvironmentPanel",
    "InputChoice",
    "ModelsPanel",
    "SegmentPanel",
    "Settings",
    "TaskChoice",
    "Widget",
}
"""What may use Qt."""
IN_SLICER = {
    "numpy",
    "vtk",
    "slicer",
    "ctk",
    "qt",
    "DICOMLib",
    "SegmentStatistics",
    "pydicom",
    "SampleData",
}
BLOCKED = ("torch", "monai", "scipy", "sam2unet_core", "qt", "ctk", "PySide6")
PROGRAM = """
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is imported at file scope")

sys.meta_path.insert(0, Blocked())
sys.path.insert(0, {folder!r})
for name in {names!r}:
    importlib.import_module("SAM2UNetLib." + name)
"""


def scripts() -> list[Path]:
    shipped = [*(EXTENSION / "SAM2UNet").rglob("*.py"), *EXTENSION.glob("*DICOM*/*.py")]
    return sorted(path for path in shipped if "__pycache__" not in path.parts)


def imported(path: Path) -> set[str]:
    """Return the packages that a script imports, anywhere in it; its own ones not."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found - {"SAM2UNetLib"}


@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.name)
def test_a_script_imports_the_standard_library_and_what_slicer_has(path: Path) -> None:
    compile(path.read_text(encoding="utf-8"), str(path), "exec")
    assert imported(path) <= IN_SLICER | set(sys.stdlib_module_names), path.name


@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.name)
def test_each_text_that_is_translated_is_a_constant_that_lupdate_can_read(path: Path) -> None:
    """It reads `_("...")` from the sources; a variable or an f-string would stay English."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
            (text,) = node.args
            assert isinstance(text, ast.Constant), f"{path.name}:{node.lineno}"
            assert isinstance(text.value, str), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("*.py")), ids=lambda path: path.name)
def test_only_the_panel_imports_qt(path: Path) -> None:
    assert path.stem in PANEL or not imported(path) & {"qt", "ctk"}


def test_what_is_not_the_panel_runs_where_torch_monai_scipy_and_qt_cannot_be_imported() -> None:
    names = sorted({path.stem for path in LIBRARY.glob("*.py")} - PANEL - {"__init__", "Parameter"})
    program = PROGRAM.format(blocked=BLOCKED, folder=str(LIBRARY.parent), names=names)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
