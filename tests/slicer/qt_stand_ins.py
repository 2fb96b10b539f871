"""PySide6 in place of PythonQt, and small stand-ins for the widgets of CTK and of Slicer.

PythonQt has properties (`widget.enabled = True`), so PySide6 runs with its feature `true_property`
for every module that is named in `speak_pythonqt`. Each stand-in has names of CTK's and Slicer's
headers only; `slicer_names.py` lists those, and a test holds the module and the stand-ins to it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import types
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets
from shibokensupport import feature

TRUE_PROPERTY = 2
HEADER = 26
MARGIN = 6
Property, Signal = QtCore.Property, QtCore.Signal


def speak_pythonqt(*modules: str) -> None:
    """Let these modules use properties, as PythonQt has them."""
    for name in modules:
        feature.pyside_feature_dict[name] = TRUE_PROPERTY


def _switch_on() -> None:
    """Begin with properties; PySide looks into every loaded module then, which PyTorch's refuse."""
    hidden = {n: m for n, m in sys.modules.items() if n.partition(".")[0] == "torch"}
    for name in hidden:
        del sys.modules[name]
    try:
        from __feature__ import true_property  # type: ignore[import-not-found]  # noqa: F401
    finally:
        sys.modules.update(hidden)


def _keep_none() -> None:
    """Make None immortal, as Python 3.12 does: PySide6 takes one from it with each property."""
    ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40


_keep_none()
_switch_on()
speak_pythonqt(__name__, "slicer.util")


def application() -> QtWidgets.QApplication:
    """Return the one application, with a font and colours like Slicer's."""
    app = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["test"])
    app.setStyle("Fusion")
    font = QtGui.QFont("DejaVu Sans")
    font.setPixelSize(12)
    app.setFont(font)
    return app


def go_dark() -> None:
    """Give the application dark colours, as Slicer's dark style has."""
    palette, role = QtGui.QPalette(), QtGui.QPalette.ColorRole
    for each in (role.Window, role.Base, role.AlternateBase, role.Button, role.ToolTipBase):
        palette.setColor(each, QtGui.QColor(45, 45, 48))
    for each in (role.WindowText, role.Text, role.ButtonText, role.ToolTipText):
        palette.setColor(each, QtGui.QColor(230, 230, 230))
    for each in (role.WindowText, role.Text, role.ButtonText):
        palette.setColor(QtGui.QPalette.ColorGroup.Disabled, each, QtGui.QColor(125, 125, 125))
    palette.setColor(role.Link, QtGui.QColor(120, 170, 255))
    application().setPalette(palette)


def plain(kind: type, name: str, default: Any) -> Any:
    """Return a Qt property that only keeps its value."""
    field = f"_{name}"
    return Property(
        kind,
        lambda self: self.__dict__.get(field, default),
        lambda self, value: self.__dict__.__setitem__(field, value),
    )


class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    contentsCollapsed = Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._collapsed = False
        self.setContentsMargins(0, HEADER, 0, 0)
        self.clicked.connect(lambda: self._collapse(not self._collapsed))

    def _collapse(self, collapsed: bool) -> None:
        self._collapsed = collapsed
        self.maximumHeight = HEADER if collapsed else 16777215
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.visible = not collapsed
        self.updateGeometry()
        self.contentsCollapsed.emit(collapsed)

    collapsed = Property(bool, lambda self: self._collapsed, _collapse)

    def sizeHint(self) -> QtCore.QSize:
        layout = self.layout()
        if self._collapsed or layout is None:
            return QtCore.QSize(120, HEADER)
        return layout.totalSizeHint()

    def minimumSizeHint(self) -> QtCore.QSize:
        layout = self.layout()
        if self._collapsed or layout is None:
            return QtCore.QSize(60, HEADER)
        return layout.totalMinimumSize()

    def showEvent(self, event: QtGui.QShowEvent) -> None:
        super().showEvent(event)
        if self._collapsed:
            self._collapse(True)

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() < HEADER

    def paintEvent(self, _event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        box = QtCore.QRect(0, 1, self.width, HEADER - 4)
        painter.fillRect(box, QtGui.QColor(214, 220, 228))
        painter.setPen(QtGui.QColor(40, 50, 60))
        arrow = "\u25b8" if self._collapsed else "\u25be"
        flags = QtCore.Qt.AlignmentFlag.AlignVCenter
        painter.drawText(box.adjusted(8, 0, 0, 0), flags, f"{arrow}  {self.text}")


class ctkSliderWidget(QtWidgets.QWidget):
    valueChanged = Signal(float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal, self)
        self._slider.maximum = 1000
        self._box = QtWidgets.QDoubleSpinBox(self)
        row = QtWidgets.QHBoxLayout(self)
        row.contentsMargins = QtCore.QMargins(0, 0, 0, 0)
        row.addWidget(self._slider)
        row.addWidget(self._box)
        self._box.valueChanged.connect(self._changed)
        self._slider.sliderMoved.connect(self._slid)

    def _slid(self, position: int) -> None:
        span = self._box.maximum - self._box.minimum
        self._box.value = self._box.minimum + span * position / 1000

    def _changed(self, value: float) -> None:
        span = (self._box.maximum - self._box.minimum) or 1.0
        self._slider.value = round(1000 * (value - self._box.minimum) / span)
        self.valueChanged.emit(value)

    def _of_box(kind: type, name: str) -> Any:
        return Property(
            kind,
            lambda self: getattr(self._box, name),
            lambda self, value: setattr(self._box, name, value),
        )

    value = _of_box(float, "value")
    minimum = _of_box(float, "minimum")
    maximum = _of_box(float, "maximum")
    singleStep = _of_box(float, "singleStep")
    decimals = _of_box(int, "decimals")
    pageStep = plain(float, "pageStep", 1.0)


class ctkPathLineEdit(QtWidgets.QWidget):
    currentPathChanged = Signal(str)
    Dirs, Files = 0x001, 0x002
    showHistoryButton = plain(bool, "showHistoryButton", True)
    filters = plain(int, "filters", 0)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._edit = QtWidgets.QLineEdit(self)
        button = QtWidgets.QToolButton(self)
        button.text = "..."
        row = QtWidgets.QHBoxLayout(self)
        row.contentsMargins = QtCore.QMargins(0, 0, 0, 0)
        row.addWidget(self._edit)
        row.addWidget(button)
        self._edit.textChanged.connect(self.currentPathChanged)

    currentPath = Property(
        str,
        lambda self: self._edit.text,
        lambda self, value: setattr(self._edit, "text", value),
    )


class qMRMLWidget(QtWidgets.QWidget):
    mrmlSceneChanged = Signal(object)

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self) -> Any:
        return self._scene


class qMRMLNodeComboBox(QtWidgets.QWidget):
    currentNodeChanged = Signal(object)
    nodeActivated = Signal(object)
    showChildNodeTypes = plain(bool, "showChildNodeTypes", True)
    removeEnabled = plain(bool, "removeEnabled", True)
    addEnabled = plain(bool, "addEnabled", True)
    noneEnabled = plain(bool, "noneEnabled", False)
    noneDisplay = plain(str, "noneDisplay", "None")

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._types: list[str] = []
        self._scene: Any = None
        self._nodes: list[Any] = []
        self._box = QtWidgets.QComboBox(self)
        policy = QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        self._box.sizeAdjustPolicy = policy
        row = QtWidgets.QHBoxLayout(self)
        row.contentsMargins = QtCore.QMargins(0, 0, 0, 0)
        row.addWidget(self._box)
        self._box.currentIndexChanged.connect(lambda: self.currentNodeChanged.emit(self._node()))

    def _set_types(self, types: list[str]) -> None:
        self._types = list(types)
        self._fill()

    nodeTypes = Property("QStringList", lambda self: self._types, _set_types)

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent):
            scene.AddObserver(event, lambda *_: self._fill())
        self._fill()
        if not self.noneEnabled:  # nodes that were there before: none is selected by itself
            self._box.currentIndex = -1

    def _fill(self) -> None:
        if self._scene is None:
            return
        before, empty = self._node(), not self._nodes
        found = [self._scene.GetNthNode(i) for i in range(self._scene.GetNumberOfNodes())]
        wanted = [
            node
            for node in found
            if not node.GetHideFromEditors()
            and any(
                node.IsA(kind) if self.showChildNodeTypes else node.GetClassName() == kind
                for kind in self._types
            )
        ]
        self._nodes = [None, *wanted] if self.noneEnabled else wanted
        self._box.blockSignals(True)
        self._box.clear()
        for node in self._nodes:
            self._box.addItem(self.noneDisplay if node is None else node.GetName())
        if before in self._nodes:
            self._box.currentIndex = self._nodes.index(before)
        elif not empty:  # only the first node of an empty list is selected by itself
            self._box.currentIndex = 0 if self.noneEnabled else -1
        self._box.blockSignals(False)
        if self._node() is not before:
            self.currentNodeChanged.emit(self._node())

    def _node(self) -> Any:
        index = self._box.currentIndex
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def currentNode(self) -> Any:
        return self._node()

    def setCurrentNode(self, node: Any) -> None:
        self._fill()
        self._box.currentIndex = self._nodes.index(node) if node in self._nodes else -1


CTK = (ctkCollapsibleButton, ctkSliderWidget, ctkPathLineEdit)
QMRML = (qMRMLWidget, qMRMLNodeComboBox)


class QUiLoader(QtUiTools.QUiLoader):
    """Loads a form with the stand-ins, and makes its connections as Designer's loader does."""

    def __init__(self) -> None:
        super().__init__()
        for widget in (*CTK, *QMRML):
            self.registerCustomWidget(widget)

    def load(self, file: QtCore.QFile) -> QtWidgets.QWidget:
        tree = ET.fromstring(bytes(file.readAll().data()))
        connections = tree.find("connections")
        tree.remove(connections)
        buffer = QtCore.QBuffer()
        buffer.setData(ET.tostring(tree))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        widget = super().load(buffer)
        for each in connections:
            signal = each.findtext("signal").partition("(")[0]
            slot = each.findtext("slot").partition("(")[0]
            receiver = widget.findChild(QtWidgets.QWidget, each.findtext("receiver"))
            getattr(widget, signal).connect(getattr(receiver, slot))
        return widget


def QSettings() -> QtCore.QSettings:
    """Return the user's settings, in the file that `make_modules` was given last."""
    return QtCore.QSettings(str(_settings_file[-1]), QtCore.QSettings.Format.IniFormat)


_settings_file: list[Path] = []


@functools.cache
def _modules() -> dict[str, types.ModuleType]:
    qt, ctk = types.ModuleType("qt"), types.ModuleType("ctk")
    for source in (QtCore, QtGui, QtWidgets):
        for name in dir(source):
            if name.startswith("Q"):
                setattr(qt, name, getattr(source, name))
    qt.QUiLoader, qt.QSettings = QUiLoader, QSettings
    for widget in CTK:
        setattr(ctk, widget.__name__, widget)
    QtCore.QObject.name = property(lambda self: self.property("objectName"))
    return {"qt": qt, "ctk": ctk}


def make_modules(settings: Path) -> dict[str, types.ModuleType]:
    """Return the modules `qt` and `ctk`, always the same ones, as the module keeps them.

    Args:
        settings: file that QSettings writes to from now on.
    """
    _settings_file.append(settings)
    return dict(_modules())
