"""What Slicer's application adds to slicer-core: base classes of modules, parameter nodes, `app`.

The scene, the nodes and `slicer.util` are Slicer's own. The stand-in of the parameter node wrapper
keeps its values in a real `vtkMRMLScriptedModuleNode`, so that they are saved with the scene.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import qt_stand_ins
import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

qt_stand_ins.speak_pythonqt(__name__)
PARAMETER_NAME = "SlicerParameterName"


class ScriptedLoadableModule:
    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent
        self.layout = parent.layout()

    def resourcePath(self, name: str) -> str:
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / name)

    def setup(self) -> None:
        pass


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self) -> Any:
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(self.moduleName)
            node.SetAttribute("ModuleName", self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        return node


def _unittest() -> type:
    import unittest

    return unittest.TestCase


class WithinRange:
    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum


class _Wrapped:
    """What `@parameterNodeWrapper` makes of a class, as far as the module uses it."""

    def __init__(self, node: Any) -> None:
        self.__dict__["parameterNode"] = node
        self.__dict__["_guis"] = {}
        self.__dict__["_writing"] = False
        node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._to_widgets())

    def __getattr__(self, name: str) -> Any:
        kind, default, _ = self.allParameters[name]
        if kind is None:
            return self.parameterNode.GetNodeReference(name)
        text = self.parameterNode.GetParameter(name)
        if not text:
            return default
        return text == "True" if kind is bool else kind(text)

    def __setattr__(self, name: str, value: Any) -> None:
        kind, _, limits = self.allParameters[name]
        if kind is None:
            node_id = value.GetID() if value is not None else None
            self.parameterNode.SetNodeReferenceID(name, node_id)
            return
        if limits and not limits.minimum <= value <= limits.maximum:
            raise ValueError(f"{name} = {value}: expected {limits.minimum} to {limits.maximum}")
        self.parameterNode.SetParameter(name, str(kind(value)))

    def connectGui(self, ui: Any) -> int:
        bound = []
        for widget in vars(ui).values():
            name = widget.property(PARAMETER_NAME)
            if not name:
                continue
            assert name in self.allParameters, f"{widget.objectName}: no parameter {name}"
            limits = self.allParameters[name][2]
            if limits and hasattr(widget, "maximum"):
                widget.minimum, widget.maximum = limits.minimum, limits.maximum
            bound.append((name, widget, self._from_widget(name, widget)))
        self._to_widgets(bound)
        for _, widget, slot in bound:
            _changed(widget).connect(slot)
        self._guis[len(self._guis)] = bound
        return len(self._guis) - 1

    def disconnectGui(self, tag: int) -> None:
        for _, widget, slot in self._guis.pop(tag, []):
            _changed(widget).disconnect(slot)

    def _from_widget(self, name: str, widget: Any) -> Any:
        def slot(*_: Any) -> None:
            if not self._writing:
                setattr(self, name, _read(widget))

        return slot

    def _to_widgets(self, bound: list | None = None) -> None:
        if self._writing:
            return
        self.__dict__["_writing"] = True
        for group in [bound] if bound is not None else list(self._guis.values()):
            for name, widget, _ in group:
                _write(widget, getattr(self, name))
        self.__dict__["_writing"] = False


def parameterNodeWrapper(described: type) -> type:
    parameters = {}
    for name, hint in typing.get_type_hints(described, include_extras=True).items():
        limits = next(iter(getattr(hint, "__metadata__", ())), None)
        kind = typing.get_args(hint)[0] if limits else hint
        plain = kind if kind in (int, float, str, bool) else None
        parameters[name] = (plain, getattr(described, name, None), limits)
    return type(described.__name__, (_Wrapped,), {"allParameters": parameters})


def _changed(widget: Any) -> Any:
    if isinstance(widget, qt_stand_ins.qMRMLNodeComboBox):
        return widget.currentNodeChanged
    return widget.toggled if isinstance(widget, QtWidgets.QCheckBox) else widget.valueChanged


def _read(widget: Any) -> Any:
    if isinstance(widget, qt_stand_ins.qMRMLNodeComboBox):
        return widget.currentNode()
    return widget.checked if isinstance(widget, QtWidgets.QCheckBox) else widget.value


def _write(widget: Any, value: Any) -> None:
    if isinstance(widget, qt_stand_ins.qMRMLNodeComboBox):
        widget.setCurrentNode(value)
    elif isinstance(widget, QtWidgets.QCheckBox):
        widget.checked = value
    else:
        widget.value = value


class Application:
    """`slicer.app`: answers questions as the tests want them."""

    applicationName = "Slicer"

    def testingEnabled(self) -> bool:
        return True  # slicer.util then opens no window and logs what it would have said

    def startupEnvironment(self) -> Any:
        return QtCore.QProcessEnvironment.systemEnvironment()

    def clipboard(self) -> QtGui.QClipboard:
        return QtWidgets.QApplication.clipboard()

    def processEvents(self) -> None:
        QtWidgets.QApplication.processEvents()


@contextlib.contextmanager
def running_slicer(module: Path, settings: Path) -> Iterator[types.SimpleNamespace]:
    """Make `qt`, `ctk` and what Slicer's application adds importable; take it all back at the end.

    Args:
        module: the module's main script.
        settings: file for the user's settings.
    """
    app = qt_stand_ins.application()
    scripted = types.ModuleType("slicer.ScriptedLoadableModule")
    for base in (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
    ):
        setattr(scripted, base.__name__, base)
    scripted.ScriptedLoadableModuleTest = type("ScriptedLoadableModuleTest", (_unittest(),), {})
    wrapper = types.ModuleType("slicer.parameterNodeWrapper")
    wrapper.parameterNodeWrapper, wrapper.WithinRange = parameterNodeWrapper, WithinRange
    modules = qt_stand_ins.make_modules(settings)
    modules |= {scripted.__name__: scripted, wrapper.__name__: wrapper}
    names = {"app": Application(), "ScriptedLoadableModule": scripted}
    names |= {widget.__name__: widget for widget in qt_stand_ins.QMRML}
    before = {name: getattr(slicer, name, None) for name in names}
    old = {name: sys.modules.get(name) for name in modules}
    namespace = getattr(slicer, "modules", None)
    if namespace is None:
        slicer.modules = types.SimpleNamespace()
    slicer.modules.sam2unet = types.SimpleNamespace(path=str(module))
    sys.modules.update(modules)
    for name, value in names.items():
        setattr(slicer, name, value)
    library = sorted(each.stem for each in (module.parent / "SAM2UNetLib").glob("*.py"))
    qt_stand_ins.speak_pythonqt(module.stem, *(f"SAM2UNetLib.{name}" for name in library))
    try:
        yield types.SimpleNamespace(app=app, qt=modules["qt"], ctk=modules["ctk"])
    finally:
        for name, value in old.items():
            sys.modules.pop(name, None)
            if value is not None:
                sys.modules[name] = value
        for name, value in before.items():
            delattr(slicer, name) if value is None else setattr(slicer, name, value)


def _same(logic: Any) -> Any:
    return logic


@contextlib.contextmanager
def real_scene() -> Iterator[Any]:
    """Give `slicer.mrmlScene` and the logics of the modules that ours depends on."""
    before = getattr(slicer, "mrmlScene", None)
    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    logics = []
    for module, name in (
        ("segmentations", "vtkSlicerSegmentationsModuleLogic"),
        ("sequences", "vtkSlicerSequencesLogic"),
        ("volumes", "vtkSlicerVolumesLogic"),
        ("subjecthierarchy", "vtkSlicerSubjectHierarchyModuleLogic"),
    ):
        logic = getattr(slicer, name)()
        logic.SetMRMLScene(scene)
        logics.append(logic)
        setattr(
            slicer.modules, module, types.SimpleNamespace(logic=functools.partial(_same, logic))
        )
    try:
        yield scene
    finally:
        scene.Clear(True)
        slicer.mrmlScene = before
