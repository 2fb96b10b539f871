"""The choice of an image and of what to segment in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
import vtk

from . import Inputs
from .Collaborators import PanelChoices
from .Errors import InputError
from .Texts import _

VOLUME = (
    ("slice", "Current slice"),
    ("range", "Range of slices"),
    ("volume", "Whole volume"),
    ("sequence", "All frames of a video"),
)
SEQUENCE = (
    ("slice", "Current frame"),
    ("range", "Range of frames"),
    ("volume", "Whole volume"),
    ("sequence", "All frames"),
)


class InputChoice:
    """Binds the first group of the panel.

    Args:
        ui: the panel's widgets by name.
        onChange: called when another image or part of it is chosen.
    """

    def __init__(self, ui: Any, *, onChange: Callable[[], None]) -> None:
        self.ui = ui
        self.onChange = onChange
        self.parameter: PanelChoices | None = None
        self.info: Inputs.InputInfo | None = None
        self._trouble = ""
        self._waiting: tuple[Any, list[int]] | None = None
        for value, label in VOLUME:
            ui.whatComboBox.addItem(_(label), value)
        ui.inputSelector.currentNodeChanged.connect(self.onInput)
        ui.whatComboBox.currentIndexChanged.connect(self.onWhat)
        ui.firstSpinBox.valueChanged.connect(self.onChange)
        ui.lastSpinBox.valueChanged.connect(self.onChange)

    def follow(self, parameter: PanelChoices | None) -> None:
        """Show the choices of a parameter node; None leaves the widgets alone."""
        self.parameter = None
        if parameter is None:
            return
        index = self.ui.whatComboBox.findData(parameter.what)
        self.ui.whatComboBox.currentIndex = max(0, index)
        self.parameter = parameter
        self.onInput()

    @property
    def node(self) -> Any:
        """The chosen image."""
        return self.ui.inputSelector.currentNode()

    @property
    def what(self) -> str:
        """What of it: "slice", "range", "volume" or "sequence"."""
        return self.ui.whatComboBox.itemData(self.ui.whatComboBox.currentIndex) or "slice"

    @property
    def isSequence(self) -> bool:
        """Whether the image is a video."""
        return self.info is not None and self.info.kind == "sequence"

    @property
    def between(self) -> tuple[int, int] | None:
        """First and last slice or frame, from 0; None unless a range is meant."""
        if self.what != "range":
            return None
        return self.ui.firstSpinBox.value - 1, self.ui.lastSpinBox.value - 1

    @property
    def problem(self) -> str:
        """Why it cannot be segmented; empty if it can."""
        if self.node is None:
            return _("Load an image first: DICOM, a video or a volume.")
        if self._trouble:
            return self._trouble
        chosen = self.between
        if chosen is not None and chosen[0] > chosen[1]:
            return _("The range ends before it begins.")
        view = self.ui.sliceViewSelector.currentNode()
        if self.what == "slice" and not self.isSequence and view is None:
            return _("Choose the slice view to segment.")
        return ""

    def refresh(self) -> None:
        """Show the rows that the choice needs."""
        for names, shown in (
            (("sliceViewLabel", "sliceViewSelector"), self.what != "volume"),
            (("firstLabel", "firstSpinBox", "lastLabel", "lastSpinBox"), self.what == "range"),
        ):
            for name in names:
                hidden = name.startswith("sliceView") and self.isSequence
                getattr(self.ui, name).visible = shown and not hidden

    def onInput(self) -> None:
        """Another image: offer what can be segmented of it."""
        self.info, self._trouble = None, ""
        self._stopWaiting()
        if self.node is not None:
            try:
                self.info = Inputs.describe(self.node)
            except InputError as error:
                self._trouble = str(error)
                self._wait(self.node)
        offered = ("slice", "range", "sequence" if self.isSequence else "volume")
        model = self.ui.whatComboBox.model()
        for index, (value, label) in enumerate(SEQUENCE if self.isSequence else VOLUME):
            model.item(index).setText(_(label))
            model.item(index).setEnabled(value in offered)
        if self.info is not None:
            if self.what not in offered:
                wanted = "sequence" if self.isSequence else "slice"
                self.ui.whatComboBox.currentIndex = self.ui.whatComboBox.findData(wanted)
            self._offerRange(self.info.frames)
        self.onChange()

    def stop(self) -> None:
        """Look at no node any more."""
        self._stopWaiting()

    def onWhat(self) -> None:
        """Another part of the image is meant."""
        if self.parameter is not None:
            self.parameter.what = self.what
        self.onChange()

    def _wait(self, node: Any) -> None:
        """A node may get its pixels after it was chosen: look again when it changes."""
        events = vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent
        tags = [node.AddObserver(event, lambda *_: self.onInput()) for event in events]
        self._waiting = (node, tags)

    def _stopWaiting(self) -> None:
        node, tags = self._waiting or (None, [])
        self._waiting = None
        for tag in tags:
            node.RemoveObserver(tag)

    def _offerRange(self, count: int) -> None:
        """A range that does not lie in the image becomes all of it."""
        if self.parameter is not None and not 1 <= self.parameter.last <= count:
            self.parameter.first, self.parameter.last = 1, count
