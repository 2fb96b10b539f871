"""What Slicer's application adds to slicer-core: base classes of modules, parameter nodes, `app`.

The scene, the nodes and `slicer.util` are Slicer's own. So is its other Python where
`slicer_sources` finds a checkout; else the stand-ins here are taken.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import parameter_stand_in
import qt_stand_ins
import slicer
import slicer_sources
from parameter_stand_in import PARAMETER_NAME
from PySide6 import QtCore, QtGui, QtWidgets

__all__ = ["PARAMETER_NAME", "Application", "real_scene", "running_slicer"]
qt_stand_ins.speak_pythonqt(__name__)


class ScriptedLoadableModule:
    def __init__(self, parent: Any) -> None:
        super().__init__()
        self.parent = parent
        self.moduleName = type(self).__name__
        slicer.selfTests = {**getattr(slicer, "selfTests", {}), self.moduleName: self.runTest}

    def resourcePath(self, name: str) -> str:
        return str(Path(self.parent.path).parent / "Resources" / name)

    def runTest(self, msec: int = 100, **kwargs: Any) -> None:
        module = importlib.import_module(type(self).__module__)
        getattr(module, f"{self.moduleName}Test")().runTest(**kwargs)


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent
        self.layout = parent.layout()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._unloaded)

    def _unloaded(self, name: str) -> None:
        if name == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect(
                "moduleAboutToBeUnloaded(QString)", self._unloaded
            )

    def cleanup(self) -> None:
        pass

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


class Application:
    """`slicer.app`: answers questions as the tests want them."""

    applicationName = "Slicer"
    temporaryPath = tempfile.gettempdir()

    def __init__(self) -> None:
        self._manager = ModuleManager()
        self.connected: list[tuple[str, Any]] = []

    def connect(self, signal: str, slot: Any) -> None:
        assert signal == "startupCompleted()"  # what the module uses
        self.connected.append((signal, slot))

    def testingEnabled(self) -> bool:
        return True  # slicer.util then opens no window and logs what it would have said

    def startupEnvironment(self) -> Any:
        return QtCore.QProcessEnvironment.systemEnvironment()

    def clipboard(self) -> QtGui.QClipboard:
        return QtWidgets.QApplication.clipboard()

    def processEvents(self) -> None:
        QtWidgets.QApplication.processEvents()

    def moduleManager(self) -> ModuleManager:
        return self._manager

    def translate(self, _context: str, text: str) -> str:
        return text

    def settings(self) -> QtCore.QSettings:
        return qt_stand_ins.QSettings()

    userSettings = settings


class qSlicerSubjectHierarchyPluginHandler:
    """Says which attributes of a patient and a study the names of their items show."""

    displayPatientIDInSubjectHierarchyItemName = True
    displayPatientBirthDateInSubjectHierarchyItemName = False
    displayStudyIDInSubjectHierarchyItemName = False
    displayStudyDateInSubjectHierarchyItemName = True

    @classmethod
    def instance(cls) -> qSlicerSubjectHierarchyPluginHandler:
        return cls()


class ModuleManager:
    """`slicer.app.moduleManager()`: tells modules that they are about to be unloaded."""

    def __init__(self) -> None:
        self._slots: list[Any] = []

    def connect(self, signal: str, slot: Any) -> bool:
        assert signal == "moduleAboutToBeUnloaded(QString)"
        self._slots.append(slot)
        return True

    def disconnect(self, signal: str, slot: Any) -> bool:
        assert signal == "moduleAboutToBeUnloaded(QString)"
        self._slots.remove(slot)
        return True

    def unload(self, name: str) -> None:
        """Tell all as the application does before it unloads a module."""
        for slot in list(self._slots):
            slot(name)


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
    modules = qt_stand_ins.make_modules(settings)
    modules |= {scripted.__name__: scripted, slicer_sources.WRAPPER: parameter_stand_in}
    names = {"app": Application(), "ScriptedLoadableModule": scripted}
    names |= {widget.__name__: widget for widget in qt_stand_ins.QMRML}
    handler = qSlicerSubjectHierarchyPluginHandler
    names[handler.__name__] = handler
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
    sources = slicer_sources.checkout()
    try:
        with (
            contextlib.nullcontext()
            if sources is None
            else slicer_sources.originals(sources, modules["ctk"])
        ):
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
        ("terminologies", "vtkSlicerTerminologiesModuleLogic"),
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
