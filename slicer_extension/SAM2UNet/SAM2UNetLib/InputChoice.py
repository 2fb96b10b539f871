"""The choice of an image and of what to segment in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
import vtk

from . import Inputs, Views
from .Collaborators import PanelChoices
from .Errors import InputError, ModuleError
from .Parameter import What
from .Slices import SliceView
from .Texts import _

OF_A_VOLUME = (What.slice, What.range, What.volume)
OF_A_CLIP = (What.slice, What.range, What.sequence)


class InputChoice:
    """Binds the first rows of the panel.

    The image that is shown is chosen, and the view that shows it, until the user picks another one.

    Args:
        ui: the panel's widgets by name.
        onChange: called when another image or part of it is chosen.
        onMoved: called when the view shows another slice of it.
        isFrozen: whether a run goes on, so that the choice must stay.
    """

    def __init__(
        self,
        ui: Any,
        *,
        onChange: Callable[[], None],
        onMoved: Callable[[], None],
        isFrozen: Callable[[], bool],
    ) -> None:
        self.ui = ui
        self.onChange, self.onMoved, self.isFrozen = onChange, onMoved, isFrozen
        self._isAsked = False
        self.parameter: PanelChoices | None = None
        self.info: Inputs.InputInfo | None = None
        self._trouble = ""
        self._default: Any = None
        self._before: Any = None
        self._watched: dict[str, list[tuple[Any, int]]] = {}
        ui.inputSelector.currentNodeChanged.connect(self.onInput)
        ui.inputSelector.nodeActivated.connect(self.onPicked)
        ui.sliceViewSelector.currentNodeChanged.connect(self.onSliceView)
        ui.whatComboBox.currentIndexChanged.connect(self.onWhat)
        ui.firstSpinBox.valueChanged.connect(self.onFirst)
        ui.lastSpinBox.valueChanged.connect(self.onLast)

    def follow(self, parameter: PanelChoices | None) -> None:
        """Show the choices of a parameter node; None leaves the widgets alone."""
        self.stop()
        self.parameter = parameter
        if parameter is None:
            return
        scene, added = slicer.mrmlScene, self._later
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent):
            self._watch("scene", scene, event, added)
        selection = scene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
        if selection is not None:
            self._watch("scene", selection, vtk.vtkCommand.ModifiedEvent, added)
        self.chooseShown()
        self.onInput()

    def stop(self) -> None:
        """Look at no node any more."""
        for name in list(self._watched):
            self._forget(name)
        self.parameter = self._default = self._before = None

    def chooseShown(self) -> None:
        """Choose the image that is shown, unless the user or the scene chose one."""
        self._isAsked = False
        if self.parameter is None or self.isFrozen():
            return
        if self.info is not None and self.node is not None and self._isAnother:
            self.onInput()  # the clip whose frames it showed is gone, or has come
        chosen = self.parameter.inputNode
        if chosen is None or chosen is self._default:
            shown = Views.shownImage()
            if shown is not None and shown is not chosen:
                self._default = shown
                self.parameter.inputNode = shown
                self.parameter.sliceView = Views.viewOf(shown)
        if self.parameter.sliceView is None:
            self.parameter.sliceView = Views.viewOf(self.parameter.inputNode)

    @property
    def node(self) -> Any:
        """The chosen image: a volume, which may show the frames of a clip."""
        return self.ui.inputSelector.currentNode()

    @property
    def source(self) -> Any:
        """The chosen volume, or the browser of the clip whose frames it shows."""
        return Inputs.sourceOf(self.node)

    @property
    def what(self) -> What:
        """What of it."""
        return list(What)[max(0, self.ui.whatComboBox.currentIndex)]

    @property
    def isSequence(self) -> bool:
        """Whether the image is a clip."""
        return self.info is not None and self.info.kind == "sequence"

    @property
    def between(self) -> tuple[int, int] | None:
        """First and last slice or frame, from 0; None unless a range is meant."""
        if self.what != What.range:
            return None
        return self.ui.firstSpinBox.value - 1, self.ui.lastSpinBox.value - 1

    @property
    def problem(self) -> str:
        """Why it cannot be segmented, and what to do; empty if it can."""
        if self.node is None:
            return _("Load an image first: DICOM, a video or a volume.")
        if self._trouble:
            return self._trouble
        chosen = self.between
        if chosen is not None and chosen[0] > chosen[1]:
            return _("The range ends before it begins.")
        if self.what == What.slice and not self.isSequence:
            if self.ui.sliceViewSelector.currentNode() is None:
                return _("Choose the slice view to segment.")
            try:
                self._slice()
            except ModuleError as error:
                return f"{error.message[:1].upper()}{error.message[1:]}: {error.remedy}."
        return ""

    @property
    def place(self) -> str:
        """Which slice or frame is meant, for the user; empty where the choice says it all."""
        if self.info is None or self.node is None or self.what != What.slice:
            return ""
        if self.isSequence and not self._isAnother:
            number = max(0, self.source.GetSelectedItemNumber()) + 1
            return _("Frame {number} of {count}").format(number=number, count=self.info.frames)
        view = self.ui.sliceViewSelector.currentNode()
        try:
            found = None if view is None else self._slice()
        except ModuleError:
            return ""
        if view is None or found is None:
            return ""
        name, (index, count) = view.GetLayoutName() or view.GetName(), found
        if index is None:
            return _("{view}, oblique").format(view=name)
        return _("{view}, slice {number} of {count}").format(
            view=name, number=index + 1, count=count
        )

    @property
    def _isAnother(self) -> bool:
        """Whether the node shows the frames of a clip now and did not before, or the reverse."""
        return self.source.IsA("vtkMRMLSequenceBrowserNode") != self.isSequence

    def refresh(self) -> None:
        """Show the rows that the choice needs, and which slice is meant."""
        if self.parameter is None:  # the list of parts is filled by the parameter node
            return
        views, ranges = self.what != What.volume and not self.isSequence, self.what == What.range
        for names, shown in (
            (("sliceViewLabel", "sliceViewSelector"), views),
            (("firstLabel", "firstSpinBox", "lastLabel", "lastSpinBox"), ranges),
        ):
            for name in names:
                getattr(self.ui, name).visible = shown
        labels = {
            What.slice: _("Current frame") if self.isSequence else What.slice.label(),
            What.range: _("Range of frames") if self.isSequence else What.range.label(),
        }
        offered = OF_A_CLIP if self.isSequence else OF_A_VOLUME
        model = self.ui.whatComboBox.model()
        for index, what in enumerate(What):
            model.item(index).setText(labels.get(what, what.label()))
            model.item(index).setEnabled(what in offered)
        self.refreshPlace()

    def refreshPlace(self) -> None:
        """Show which slice or frame is meant."""
        place = self.place
        self.ui.placeLabel.text = place
        self.ui.placeLabel.visible = bool(place)

    def onPicked(self, _node: Any = None) -> None:
        """The user picked an image: another one that is shown does not replace it."""
        self._default = None

    def onInput(self, _node: Any = None) -> None:
        """Another image: offer what can be segmented of it."""
        node = self.node
        if not self._keep("inputNode", node):
            return
        if self._before is None and node is not None and node is not self._default:
            self._default = node  # the list itself takes the first node that comes
        self._before = node
        self.info, self._trouble = None, ""
        self._forget("pixels")
        if node is not None:
            try:
                self.info = Inputs.describe(self.source)
            except InputError as error:
                self._trouble = f"{error.message[:1].upper()}{error.message[1:]}: {error.remedy}."
                self._wait(node)
        self._forget("browser")
        if self.isSequence:
            modified = vtk.vtkCommand.ModifiedEvent
            self._watch("browser", self.source, modified, self.refreshPlace)
        if self.info is not None:
            offered = OF_A_CLIP if self.isSequence else OF_A_VOLUME
            if self.what not in offered:
                self.parameter.what = What.sequence if self.isSequence else What.slice
            self._offerRange(self.info.frames)
        self.onPart()

    def onSliceView(self, _node: Any = None) -> None:
        """Another view is meant."""
        self._keep("sliceView", self.ui.sliceViewSelector.currentNode())
        self.onPart()

    def onWhat(self, _index: int = 0) -> None:
        """Another part of the image is meant."""
        if self.ui.whatComboBox.currentIndex >= 0:  # the list is not being filled
            self._keep("what", self.what)
            self.onPart()

    def onFirst(self, value: int) -> None:
        """The range begins elsewhere."""
        self._keep("first", value)
        self.onPart()

    def onLast(self, value: int) -> None:
        """The range ends elsewhere."""
        self._keep("last", value)
        self.onPart()

    def onPart(self) -> None:
        """Another part of the image, or another view, is meant."""
        if self.parameter is None:
            return
        self._forget("view")
        view = self.ui.sliceViewSelector.currentNode()
        if view is not None:
            self._watch("view", view, vtk.vtkCommand.ModifiedEvent, self.onView)
        self.onChange()

    def onView(self) -> None:
        """The view was moved to another slice."""
        if self.what == What.slice and not self.isSequence:
            self.refreshPlace()
            self.onMoved()

    def _keep(self, name: str, value: Any) -> bool:
        """Keep what a widget says before anything else is written to the parameter node.

        The node's own connection comes later, and a node that changes rewrites all widgets.
        """
        if self.parameter is None:
            return False
        if getattr(self.parameter, name) != value:
            setattr(self.parameter, name, value)
        return True

    def _slice(self) -> tuple[int | None, int] | None:
        """Return which slice the view shows and how many there are; None for the first if oblique.

        Raises:
            ModuleError: the view lies beside the volume.
        """
        if self.info is None or self.node is None:
            return None
        view = SliceView.of(self.ui.sliceViewSelector.currentNode(), self.node)
        return view.plane(), view.size[view.steepest]

    def _later(self) -> None:
        if not self._isAsked:  # one look for all nodes of a scene that is loaded
            self._isAsked = True
            qt.QTimer.singleShot(0, self.chooseShown)  # it is shown after it was added

    def _wait(self, node: Any) -> None:
        """A node may get its pixels after it was chosen: look again when it changes."""
        for event in (
            vtk.vtkCommand.ModifiedEvent,
            slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent,
        ):
            self._watch("pixels", node, event, self.onInput)

    def _watch(self, name: str, node: Any, event: Any, slot: Callable[[], None]) -> None:
        tag = node.AddObserver(event, lambda *_: slot())
        self._watched.setdefault(name, []).append((node, tag))

    def _forget(self, name: str) -> None:
        for node, tag in self._watched.pop(name, []):
            node.RemoveObserver(tag)

    def _offerRange(self, count: int) -> None:
        """A range that does not lie in the image becomes all of it."""
        if self.parameter is not None and not 1 <= self.parameter.last <= count:
            self.parameter.first, self.parameter.last = 1, count
