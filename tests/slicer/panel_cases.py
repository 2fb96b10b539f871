"""The panel, and runs that say what they are told: for the tests and for the pictures."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import qt_stand_ins
import slicer
import slicer_stand_ins
from PySide6 import QtCore

from sam2unet_core.batch.formats import FORMATS

qt_stand_ins.speak_pythonqt(__name__)
PATIENCE_MS = 300_000
ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "slicer_extension" / "SAM2UNet" / "SAM2UNet.py"
POLYP = {
    "name": "polyp",
    "title": "Colon polyp",
    "threshold": 0.5,
    "accepts": {"modalities": ["ES", "XC"]},
    "metrics": {"note": "starter model, research only, mean Dice 0.82 on 116 held-out frames"},
}
ULTRASOUND = {
    "name": "nerve",
    "title": "Nerve in ultrasound",
    "threshold": 0.4,
    "accepts": {"modalities": ["US"]},
}


class SaidRuns:
    """Runs whose events the test says; notes what the panel asks of it."""

    def __init__(self, parameter: Any) -> None:
        self.parameter = parameter
        self.events: list[tuple] = []
        self.asked: list[tuple] = []
        self.busy = False
        self.canUndo = False
        self.canRefine = True
        self.isEdited = False
        self.log = "the worker's log"
        self.rejections: dict[str, str] = {}

    def askForTasks(self, command: list[str]) -> None:
        self.asked.append(("tasks", command))

    def rejection(self, source: dict[str, Any] | None, task: dict[str, Any]) -> str:
        return "" if source is None else self.rejections.get(task["name"], "")

    def start(self, command: list[str], **fields: Any) -> None:
        self.asked.append(("start", fields))

    def rethreshold(self, parameter: Any) -> None:
        self.asked.append(("rethreshold", round(parameter.threshold, 2)))

    def exportDicomSeg(self, command: list[str], node: Any, folder: str) -> None:
        self.asked.append(("export", node, folder))

    def poll(self) -> list[tuple]:
        events, self.events = self.events, []
        return events

    def cancel(self) -> None:
        self.asked.append(("cancel",))

    def undo(self) -> None:
        self.asked.append(("undo",))

    def close(self) -> None:
        self.asked.append(("close",))

    def forget(self) -> None:
        self.asked.append(("forget",))


@contextlib.contextmanager
def opened_panel(
    folder: Path, *, python: str = sys.executable, before: Callable[[], object] = object
) -> Iterator[SimpleNamespace]:
    """Open the module's panel over an empty scene, with an existing environment chosen.

    Args:
        folder: for the settings.
        python: the existing environment's Python; empty chooses the module's own, not yet built.
        before: called with the scene in place, before the panel is there.
    """
    if str(MODULE.parent) not in sys.path:
        sys.path.insert(0, str(MODULE.parent))
    with (
        slicer_stand_ins.running_slicer(MODULE, folder / "Slicer.ini") as running,
        slicer_stand_ins.real_scene() as scene,
    ):
        settings = running.qt.QSettings()
        settings.setValue("SAM2UNet/folder", str(folder / "environment"))
        settings.setValue("SAM2UNet/kind", "existing" if python else "own")
        settings.setValue("SAM2UNet/python", python)
        settings.sync()
        before()
        module = importlib.import_module("SAM2UNet")
        library = importlib.import_module("SAM2UNetLib.Widget")
        form = slicer.util.loadUI(str(MODULE.parent / "Resources" / "UI" / "SAM2UNet.ui"))
        ui = slicer.util.childWidgetVariables(form)
        form.setMRMLScene(scene)
        logic = SaidRuns(module.SAM2UNetLogic().getParameterNode())
        panel = library.Panel(ui, runs=logic, source=ROOT)
        panel.follow(logic.parameter)
        with no_error_in_a_slot():
            try:
                yield SimpleNamespace(
                    panel=panel, ui=ui, form=form, logic=logic, scene=scene, app=running.app
                )
            finally:
                panel.follow(None)
                panel.close()
                form.deleteLater()


@contextlib.contextmanager
def no_error_in_a_slot() -> Iterator[None]:
    """Raise what a slot raised: Qt only prints it."""
    raised: list[BaseException] = []
    before = sys.excepthook
    sys.excepthook = lambda _kind, error, _trace: raised.append(error)
    try:
        yield
    finally:
        sys.excepthook = before
    if raised:
        raise raised[0]


def offer(*tasks: Any) -> Any:
    """Return what an environment offers: two tasks with weights and one without, or others."""
    library = importlib.import_module("SAM2UNetLib.Tasks")
    tasks = tasks or (
        library.TaskEntry("polyp", "Colon polyp", POLYP, True),
        library.TaskEntry("nerve", "Nerve in ultrasound", ULTRASOUND, True),
        library.TaskEntry("skin", "Skin lesion", {"name": "skin"}, False),
    )
    formats = [library.FormatEntry(each.name, each.help) for each in FORMATS.values()]
    return library.Offer(tuple(tasks), tuple(formats))


def colour_volume(name: str = "Colonoscopy frame", modality: str | None = None) -> Any:
    """Return a colour volume of one slice in the scene, as from DICOM if it has a modality."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", name)
    pixels = np.zeros((1, 48, 64, 3), np.uint8)
    pixels[0, 10:30, 20:44] = (200, 90, 70)
    slicer.util.updateVolumeFromArray(node, pixels)
    if modality:
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        key = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
        item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
        hierarchy.SetItemAttribute(item, key, modality)
    return node


def slice_view(name: str = "Red") -> Any:
    """Return a slice view node in the scene."""
    node = slicer.vtkMRMLSliceNode()
    node.SetName(name)
    node.SetLayoutName(name)
    return slicer.mrmlScene.AddNode(node)


def live(condition: Callable[[], bool], *, patience_ms: int = PATIENCE_MS) -> None:
    """Let Qt's timers run until a condition holds; it is looked at after each tick."""
    loop, limit, tick = QtCore.QEventLoop(), QtCore.QTimer(), QtCore.QTimer()
    limit.singleShot = True
    limit.timeout.connect(loop.quit)
    tick.timeout.connect(lambda: loop.quit() if condition() else None)
    limit.start(patience_ms)
    tick.start(5)
    loop.exec()
    assert condition()
