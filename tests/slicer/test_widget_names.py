"""Every name of Qt, CTK and Slicer that the module uses is one that they have."""

from __future__ import annotations

import ast
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import qt_stand_ins
import slicer
import slicer_names
import slicer_stand_ins
from PySide6 import QtCore, QtGui, QtWidgets

EXTENSION = Path(__file__).resolve().parents[2] / "slicer_extension"
FORM = EXTENSION / "SAM2UNet" / "Resources" / "UI" / "SAM2UNet.ui"
SCRIPTS = sorted(
    path
    for path in EXTENSION.rglob("*.py")
    if path.name != "make_icon.py" and not path.name.startswith("make_")
)
STAND_INS = {each.__name__: each for each in (*qt_stand_ins.CTK, *qt_stand_ins.QMRML)}
NATIVE_ONLY = {"findData": "QComboBox"}


def chain(node: ast.AST) -> tuple[str, ...]:
    """Return the names of `a.b.c`, or nothing for other expressions."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else ()


def used(path: Path) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield each chain of attributes of a script, and whether it is called."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (names := chain(node)):
            yield names, id(node) in called


def widget_classes() -> dict[str, str]:
    """Return the class of each widget of the form, by its name."""
    return {each.get("name"): each.get("class") for each in ET.parse(FORM).iter("widget")}


def qt_names(kind: str) -> tuple[set[str], set[str]]:
    """Return the properties and the methods of a class of Qt, from its meta-object."""
    meta = getattr(QtWidgets, kind).staticMetaObject
    properties = {meta.property(index).name() for index in range(meta.propertyCount())}
    methods = {
        bytes(meta.method(index).name().data()).decode() for index in range(meta.methodCount())
    }
    return properties, methods | set(dir(getattr(QtWidgets, kind)))


def known(kind: str) -> tuple[set[str], set[str]]:
    if kind not in slicer_names.PROPERTIES:
        return qt_names(kind)
    base = "QAbstractButton" if kind == "ctkCollapsibleButton" else "QWidget"
    properties, methods = qt_names(base)
    return (
        properties | slicer_names.PROPERTIES[kind],
        methods | slicer_names.METHODS[kind],
    )


def test_each_widget_that_is_used_is_in_the_form_and_has_what_is_used() -> None:
    widgets, checked = widget_classes(), 0
    for path in SCRIPTS:
        for names, called in used(path):
            if "ui" not in names[:2] or len(names) < names.index("ui") + 2:
                continue
            widget, *rest = names[names.index("ui") + 1 :]
            assert widget in widgets, f"{path.name}: no widget {widget} in the form"
            if not rest:
                continue
            properties, methods = known(widgets[widget])
            where = f"{path.name}: {widgets[widget]}.{rest[0]}"
            assert rest[0] in properties | methods, where
            if rest[0] in properties and len(rest) == 1:
                assert not called, f"{where} is a property in PythonQt"
            checked += 1
    assert checked > 100


def test_each_name_of_qt_and_ctk_is_theirs() -> None:
    for path in SCRIPTS:
        for names, _ in used(path):
            if names[0] == "qt" and len(names) > 1:
                owner = next(
                    (part for part in (QtCore, QtGui, QtWidgets) if hasattr(part, names[1])), None
                )
                assert owner is not None, f"{path.name}: qt.{names[1]}"
                if len(names) > 2:
                    assert hasattr(getattr(owner, names[1]), names[2]), f"{path.name}: {names}"
            elif names[0] == "ctk" and len(names) > 1:
                assert names[1] in slicer_names.PROPERTIES, f"{path.name}: ctk.{names[1]}"
                if len(names) > 2:
                    assert names[2] in slicer_names.ENUMERATIONS[names[1]], f"{path.name}: {names}"


def test_each_name_of_slicer_is_one_of_slicer_core_or_of_the_application() -> None:
    for path in SCRIPTS:
        for names, _ in used(path):
            if names[0] != "slicer" or len(names) < 2:
                continue
            where = f"{path.name}: {'.'.join(names)}"
            if names[1] == "util" and len(names) > 2:
                assert hasattr(slicer.util, names[2]), where
            elif names[1] == "app" and len(names) > 2:
                assert names[2] in slicer_names.APPLICATION, where
            elif names[1] not in slicer_names.NAMESPACE:
                assert names[1] in STAND_INS or hasattr(slicer, names[1]), where


@pytest.mark.parametrize("kind", sorted(STAND_INS))
def test_a_stand_in_has_no_name_of_its_own(kind: str) -> None:
    """Whatever the tests use of a stand-in, the real widget must have."""
    stand_in = STAND_INS[kind]
    base = stand_in.__mro__[1]
    own = {name for name in vars(stand_in) if not name.startswith("_")}
    own = {name for name in own if name not in dir(base)}
    own -= {"staticMetaObject"}
    allowed = slicer_names.PROPERTIES[kind] | slicer_names.METHODS[kind]
    allowed |= slicer_names.ENUMERATIONS.get(kind, set())
    assert own <= allowed


def test_the_application_stand_in_has_names_of_slicers_application_only() -> None:
    own = {name for name in vars(slicer_stand_ins.Application) if not name.startswith("_")}
    assert own <= slicer_names.APPLICATION


def test_the_form_uses_properties_that_its_widgets_have() -> None:
    for widget in ET.parse(FORM).iter("widget"):
        properties, _ = known(widget.get("class"))
        for each in widget.findall("property"):
            if each.get("stdset") == "0":
                assert each.get("name") == slicer_stand_ins.PARAMETER_NAME
                continue
            assert each.get("name") in properties, (widget.get("name"), each.get("name"))


def test_each_parameter_of_the_form_is_a_parameter_of_the_module() -> None:
    tree = ast.parse((EXTENSION / "SAM2UNet/SAM2UNetLib/Parameter.py").read_text())
    described = next(
        each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == "Parameter"
    )
    parameters = {node.target.id for node in described.body if isinstance(node, ast.AnnAssign)}
    bound = {
        each.findtext("string")
        for each in ET.parse(FORM).iter("property")
        if each.get("name") == slicer_stand_ins.PARAMETER_NAME
    }
    assert bound <= parameters
    assert len(bound) >= 9
