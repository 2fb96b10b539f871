"""The tab Segment: binds the widgets to the runs, which do the work.

The panel computes nothing: it starts runs, polls them from a timer, and shows what they report.
"""

from __future__ import annotations

import contextlib
import html
import sys
import time
from collections.abc import Callable
from typing import Any

import ctk
import qt
import slicer
import vtk

from . import AfterRun, Inputs
from .Collaborators import PanelChoices, Report, RunControl
from .Environment import EnvironmentProblem
from .Errors import InputError, ModuleError
from .Export import unboundFrame
from .InputChoice import InputChoice
from .Inputs import pixelArea
from .Placement import referenceOf, resultsOf
from .SegmentationLogic import overwritten
from .Settings import keep, setting
from .TaskChoice import TaskChoice
from .Tasks import Offer, TaskEntry
from .Texts import _, minutes, note

POLL_MS = 20
SHORTCUT = "Ctrl+Return"


class SegmentPanel:
    """Binds the tab.

    Args:
        ui: the panel's widgets by name.
        runs: does the work.
        command: returns the command that starts `sam2unet`, or raises EnvironmentProblem.
        onOffer: called with what the environment offers.
    """

    def __init__(
        self,
        ui: Any,
        *,
        runs: RunControl,
        command: Callable[[], list[str]],
        onOffer: Callable[[Offer], None] = lambda _offer: None,
    ) -> None:
        self.ui = ui
        self.runs = runs
        self.command = command
        self.onOffer = onOffer
        self.parameter: PanelChoices | None = None
        self.running = False
        self.result: Any = None
        self._refine = False
        self._quiet = False
        self._ranWith: tuple[str, str, Any] = ("", "", None)
        self._tag: int | None = None
        self._warnings: list[str] = []
        self._started = 0.0
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MS
        self._timer.timeout.connect(self.onTimer)
        self.ui.weightsPath.filters = ctk.ctkPathLineEdit.Files
        for value, label in devices(sys.platform):
            self.ui.deviceComboBox.addItem(label, value)
        index = self.ui.deviceComboBox.findData(setting("device", "auto"))
        self.ui.deviceComboBox.currentIndex = max(0, index)
        self.choice = TaskChoice(ui, onChange=self.onTask)
        self.input = InputChoice(
            ui, onChange=self.onInput, onMoved=self.onMoved, isFrozen=lambda: self.running
        )
        self._connect()

    def follow(self, parameter: PanelChoices | None) -> None:
        """Show and keep the choices that a parameter node holds; None follows nothing."""
        if self._tag is not None:
            self.parameter.parameterNode.RemoveObserver(self._tag)
        self._tag, self.parameter = None, parameter
        if parameter is not None:
            event = vtk.vtkCommand.ModifiedEvent
            self._tag = parameter.parameterNode.AddObserver(event, lambda *_: self.onParameter())
            self.onParameter()
            self._followResult()
        self.input.follow(parameter)
        if parameter is not None:
            self.refresh()

    def _followResult(self) -> None:
        """Choose the result of a run as the segmentation, later if another module is shown now."""
        if self._follows or self.parameter is None or self.result is None:
            return
        self._follows = True
        if self.result.GetScene() is not None:
            self.parameter.outputSegmentation = self.result

    def onParameter(self) -> None:
        """The scene's choices changed, perhaps because another scene was loaded."""
        entry, wanted = self.choice.current, (self.parameter.task, self.parameter.bundle)
        if self.ui.weightsPath.currentPath != self.parameter.weights:
            self.ui.weightsPath.currentPath = self.parameter.weights
        shown = ("", "") if entry is None else (entry.name, str(entry.bundle or ""))
        if self.choice.entries and wanted == ("", ""):
            self.onTask()  # a new scene: it gets the task that is shown, and its threshold
        elif self.choice.entries and wanted != shown:
            self.choice.show(*wanted)
            self.refresh()
        self._refreshResult()

    def refresh(self) -> None:
        """Enable what can be done now, and say what is missing for the rest."""
        self.input.refresh()
        self.choice.refresh(self._rejection, self._unchecked)
        if self.runs.busy:
            self._timer.start()
        self._refreshButton()
        self._refreshResult()

    def _refreshButton(self) -> None:
        """Enable the button, or say what is missing."""
        problem = self.problem()
        button, shortcut = self.ui.applyButton, qt.QKeySequence(SHORTCUT)
        button.text = _("Cancel") if self.running else _("Segment with SAM2-UNet")
        button.shortcut = shortcut  # a new text takes it away
        button.enabled = not problem or self.running
        keys = shortcut.toString(qt.QKeySequence.NativeText)
        button.toolTip = problem or (
            _("Stop the run.") if self.running else _("Run the network ({keys}).").format(keys=keys)
        )
        self.ui.progressBar.visible = self.running
        for name in ("inputSelector", "whatComboBox", "taskComboBox", "bundleButton"):
            getattr(self.ui, name).enabled = not self.running
        place = self.input.place
        ready = _("Ready: {place}.").format(place=place) if place else _("Ready.")
        if problem and not self.running:
            self.say(problem)
        elif self.ui.statusLabel.text in (self._lastProblem, self._lastReady, ""):
            self.say(ready)
        self._lastProblem, self._lastReady = problem, ready

    def _refreshResult(self) -> None:
        """Show what can be done with the result, and what is missing for the rest."""
        node = None if self.parameter is None else self.parameter.outputSegmentation
        self.ui.refineCollapsibleButton.visible = self.result is not None
        self.ui.startAgainButton.visible = self.result is not None and self._isKept
        unit = self._unit
        if self.ui.minimumSizeSpinBox.suffix != unit:
            self.ui.minimumSizeSpinBox.suffix = unit
        why = _("Wait for the run, or cancel it.") if self.running else ""
        missing = why or (_("Segment first, or choose a segmentation.") if node is None else "")
        flat = _("A single slice or frame has no shape in 3D.")
        for name, problem, text in (
            (
                "undoButton",
                (_("Wait until the result is written.") if self.runs.busy and not why else why)
                or ("" if self.runs.canUndo else _("There is no run to undo.")),
                _("Restore the segmentation as it was before the last run."),
            ),
            (
                "show3DButton",
                missing or ("" if AfterRun.canShow3D(node) else flat),
                _("Show the segments as surfaces in the 3D view."),
            ),
            ("editButton", missing, _("Open this segmentation in Slicer's Segment Editor.")),
            (
                "statisticsButton",
                missing,
                _("Show volumes in mm3, or areas in mm2; for a clip also a plot over time."),
            ),
            (
                "exportButton",
                missing,
                _("Write the segmentation as DICOM SEG that refers to the images of its study."),
            ),
        ):
            button = getattr(self.ui, name)
            button.enabled, button.toolTip = not problem, problem or text
        shown = not missing and AfterRun.isShown3D(node)
        self.ui.show3DButton.text = _("Hide 3D") if shown else _("Show 3D")

    @property
    def _unit(self) -> str:
        """The unit of the minimum size: pixels where the image's spacing is not known."""
        try:
            known = self.input.node is not None and pixelArea(self.input.node) is not None
        except InputError:
            known = False
        return _(" mm2") if known else _(" px")

    _image: Any = None
    _isKept = False
    _follows = True
    _lastReady = ""
    _lastProblem = ""

    def problem(self) -> str:
        """Why the button cannot be pressed; empty if it can."""
        try:
            self.command()
        except EnvironmentProblem as error:
            return str(error)
        if not self.choice.entries and self.runs.busy:
            return _("Asking the environment for its tasks...")
        return self.input.problem or self.choice.problem

    def askForTasks(self, command: list[str]) -> None:
        """Ask an environment for its tasks; the answer comes with the timer.

        A run that is not finished keeps its environment; the other is asked afterwards.
        """
        if self.running:
            return
        try:
            self.runs.askForTasks(command)
        except OSError as error:
            self.fail(str(error), _("Check the environment on the tab Setup."))
            return
        self._timer.start()

    def batchOptions(self) -> dict[str, Any]:
        """Return the choices that the tab Folder shares with this one."""
        entry = self.choice.current
        bundle = entry.bundle if entry is not None else None
        return {
            "task": entry.name if entry is not None and bundle is None else None,
            "bundle": str(bundle) if bundle is not None else None,
            "weights": self.ui.weightsPath.currentPath or None,
            "device": self.ui.deviceComboBox.itemData(self.ui.deviceComboBox.currentIndex),
            "threshold": self._threshold,
            "force": self.ui.forceCheckBox.checked,
        }

    def batchSummary(self) -> str:
        """Return, for the tab Folder, the task and the threshold that it will use."""
        entry = self.choice.current
        if entry is None:
            return _("Choose a task on the first tab.")
        text = _("{task}, threshold {threshold:g}, device: {device}")
        return text.format(
            task=entry.title, threshold=self._threshold, device=self.ui.deviceComboBox.currentText
        )

    def close(self) -> None:
        """Stop what runs, before the module is removed."""
        self._timer.stop()
        self.input.stop()
        self.runs.close()
        self.running = False

    def forget(self) -> None:
        """The runs were ended from elsewhere: show no run and no result any more."""
        ended, self.running, self._refine, self.result = self.running, False, False, None
        self._isKept, self._image, self._ranWith = False, None, ("", "", None)
        self.refresh()
        if ended:
            self.say(_("The run was ended."))

    def onApply(self) -> None:
        """Begin a run; while one is going on, cancel it."""
        if self.running:
            self.onCancel()
            return
        if not self.choice.confirm():
            return
        self._askAboutEdits()
        entry = self.choice.current
        try:
            self.runs.start(
                self.command(),
                entry=entry,
                parameter=self.parameter,
                between=self.input.between,
                weights=self.ui.weightsPath.currentPath or None,
                device=self.ui.deviceComboBox.itemData(self.ui.deviceComboBox.currentIndex),
            )
        except Exception as error:  # whatever it is, the panel stays usable
            self._end()
            self.fail(str(error), getattr(error, "remedy", "") or _("Copy the log."))
            return
        self._ranWith = self._shown()
        self._begin(_("Preparing..."))

    def _askAboutEdits(self) -> None:
        """Ask before a run writes over what a person painted; a new segmentation keeps it."""
        node = self.parameter.outputSegmentation
        if node is None:
            return
        try:
            extraction = Inputs.places(
                self.input.source,
                str(self.input.what),
                sliceNode=self.parameter.sliceView,
                between=self.input.between,
            )
            painted = overwritten(node, extraction, self.choice.current.task)
        except ModuleError:  # the run says why
            return
        if not painted:
            return
        question = _(
            "{names} in {segmentation} was edited by hand. Replace the edits by the network's "
            "result? No keeps them and makes a new segmentation."
        ).format(names=", ".join(painted), segmentation=node.GetName())
        if not slicer.util.confirmYesNoDisplay(question, _("Replace edits?")):
            self.parameter.outputSegmentation = None

    def _shown(self) -> tuple[str, str, Any]:
        """Return what a result belongs to: task, bundle and image."""
        return self.parameter.task, self.parameter.bundle, self.parameter.inputNode

    def onCancel(self) -> None:
        """Ask the run to stop; its last event says when it has."""
        self.say(_("Cancelling..."))
        self.ui.applyButton.enabled = False
        self.runs.cancel()

    def onUndo(self) -> None:
        """Restore the segmentation as it was before the last run."""
        question = _("You edited this result. Undo the run and remove your edits with it?")
        if self.runs.isEdited and not slicer.util.confirmOkCancelDisplay(question, _("Undo run?")):
            return
        self.runs.undo()
        self.result, self._warnings, self._isKept = None, [], False
        self.refresh()
        self.say(_("Undone: the segmentation is as it was before the run."))

    def onExport(self) -> None:
        """Write the chosen segmentation as a DICOM object, through the worker."""
        node = self.parameter.outputSegmentation
        if not self._confirmFrame(node):
            return
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder for the DICOM SEG"))
        if not folder:
            return
        try:
            self.runs.exportDicomSeg(self.command(), node, folder)
        except Exception as error:
            self._failWith(error)
            return
        self._begin(_("Writing DICOM SEG..."))

    def _confirmFrame(self, node: Any) -> bool:
        """Ask which frame is meant where a segmentation shows on all frames of a clip."""
        try:
            frame = unboundFrame(node)
        except ModuleError:  # saving says why
            return True
        if frame is None:
            return True
        question = _(
            "{name} does not follow the frames of the clip. The DICOM SEG will refer to frame "
            "{number}, which is shown now. Save it?"
        ).format(name=node.GetName(), number=frame + 1)
        return slicer.util.confirmOkCancelDisplay(question, _("Frame of the segmentation"))

    def onShow3D(self) -> None:
        """Show the segmentation in 3D, or hide it there."""
        node = self.parameter.outputSegmentation
        AfterRun.show3D(node, shown=not AfterRun.isShown3D(node))
        self._refreshResult()

    def onEdit(self) -> None:
        """Open the segmentation in Slicer's Segment Editor."""
        try:
            AfterRun.edit(self.parameter.outputSegmentation)
        except Exception as error:
            self._failWith(error)

    def onStatistics(self) -> None:
        """Show the sizes of the segments."""
        try:
            table = AfterRun.statistics(self.parameter.outputSegmentation)
        except Exception as error:
            self._failWith(error)
            return
        self.say(_("Table: {name}").format(name=table.GetName()))

    def onStartAgain(self) -> None:
        """Replace the edits by the network's result, with the choices as they are."""
        self._isKept = False
        self.runs.rethreshold(self.parameter)
        self._timer.start()
        self._refreshResult()

    def _failWith(self, error: Exception) -> None:
        message = getattr(error, "message", "") or str(error) or type(error).__name__
        self.fail(message, getattr(error, "remedy", "") or _("Copy the log."))

    def onTimer(self) -> None:
        """Show what happened; update the result if a slider was moved meanwhile."""
        try:
            for event in self.runs.poll():
                self.take(event)
        except Exception as error:  # or the panel would show a run that never ends
            self.runs.forget()
            self._end()
            self.fail(f"{type(error).__name__}: {error}", _("Copy the log, then try again."))
            self._timer.stop()
            return
        idle = not self.running and not self.runs.busy
        if self._refine and idle and self.parameter is not None:
            self._refine = False
            self._rethreshold()
        if not self.running and not self.runs.busy:
            self._timer.stop()

    def _rethreshold(self) -> None:
        """Update the result to the sliders; what a person painted since is kept."""
        self._isKept = self.runs.isEdited
        self._refreshResult()
        if self._isKept:
            self.say(
                _(
                    "You edited this result, so it stays as it is. <i>Start again from the "
                    "network's result</i> replaces your edits."
                )
            )
            return
        self.runs.rethreshold(self.parameter)

    def take(self, event: Report) -> None:
        """Show one event of the runs."""
        kind, *content = event
        shown: dict[str, Callable[..., None]] = {
            "offer": self._takeOffer,
            "rejections": self.refresh,
            "status": self.say,
            "progress": self._progress,
            "warned": self._warn,
            "finished": self._finish,
            "refined": self._refined,
            "exported": self._exported,
            "failed": self._failed,
            "cancelled": self._cancelled,
        }
        if kind in shown:
            shown[kind](*content)

    def say(self, text: str) -> None:
        """Show a status line."""
        self.ui.statusLabel.text = text
        self.ui.statusLabel.toolTip = ""

    def fail(self, message: str, remedy: str) -> None:
        """Say what went wrong and what to do; the log has it too."""
        message = message[:1].upper() + message[1:].rstrip(".")
        remedy = remedy[:1].upper() + remedy[1:].rstrip(".") + ("." if remedy else "")
        self.say(f"<b>{message}.</b> {remedy}")
        self.ui.logTextEdit.appendPlainText(f"{message}. {remedy}")

    def onInput(self) -> None:
        """Another image, or another part of it: its own result is the one that is shown."""
        if self.running or self.parameter is None:
            return
        self._matchImage()
        self.refresh()

    def onMoved(self) -> None:
        """The view shows another slice of the same image."""
        self._refreshButton()

    def _matchImage(self) -> None:
        """Another image has its own result; the choice of a segmentation is else left alone."""
        image, node = self.input.node, self.parameter.outputSegmentation
        if image is self._image:
            return
        first, self._image = self._image is None, image
        if image is None:
            return
        if self.result is not None and self._ranWith[2] is not image:
            self.result = None
        if node is not None and (first or referenceOf(node) in (None, image)):
            return  # as the scene says, or drawn for whatever is shown
        if node is not None or self.result is None:
            found = resultsOf(image)
            self.parameter.outputSegmentation = found[-1] if found else None

    def onTask(self) -> None:
        """Another task: its own threshold is offered; a result of the former one stays."""
        entry = self.choice.current
        if entry is None or self.parameter is None:
            self.refresh()
            return
        chosen = entry.name, str(entry.bundle or "")
        if (self.parameter.task, self.parameter.bundle) != chosen:
            self._quiet = True  # the sliders move for the next run
            try:
                with slicer.util.NodeModify(self.parameter.parameterNode):
                    self.parameter.task, self.parameter.bundle = chosen
                    self.parameter.threshold = entry.threshold
            finally:
                self._quiet = False
        self.refresh()

    def onDevice(self) -> None:
        """Another device; Slicer keeps it for this user."""
        chosen = self.ui.deviceComboBox.itemData(self.ui.deviceComboBox.currentIndex)
        keep("device", chosen or "auto")

    def onRefinement(self) -> None:
        """A slider was moved: the last result follows, without the network."""
        mine = self.parameter is not None and self._ranWith == self._shown()
        if self.result is not None and mine and self.runs.canRefine and not self._quiet:
            self._refine = True
            self._timer.start()

    def onWeights(self) -> None:
        """Another weights file; the scene keeps it."""
        if self.parameter is not None:
            self.parameter.weights = self.ui.weightsPath.currentPath
        self.refresh()

    def onCopyLog(self) -> None:
        """Put the panel's log and the worker's on the clipboard."""
        slicer.app.clipboard().setText(f"{self.ui.logTextEdit.plainText}\n\n{self.runs.log}")

    def _rejection(self, entry: TaskEntry) -> str:
        """Return why a task is not made for the image; empty where that is not known."""
        info = self.input.info
        return "" if info is None else self.runs.rejection(info.sourceFor(entry.task), entry.task)

    def _unchecked(self, entry: TaskEntry) -> str:
        info = self.input.info
        return "" if info is None else info.unchecked(entry.task)

    @property
    def _threshold(self) -> float:
        """The threshold as it is kept: the slider shows it rounded."""
        if self.parameter is None:
            return self.ui.thresholdSlider.value
        return self.parameter.threshold

    def _begin(self, text: str) -> None:
        self.running, self._refine, self._warnings = True, False, []
        self._started = time.monotonic()
        self._timer.start()
        self.ui.progressBar.maximum = 0  # shows that it works until there is a count
        self.refresh()
        self.say(text)

    def _progress(self, done: int, total: int, secondsLeft: float | None) -> None:
        self.ui.progressBar.maximum, self.ui.progressBar.value = total, done
        text = _("{done} of {total}").format(done=done, total=total)
        if secondsLeft is not None and done < total:
            text += _(", about {time} left").format(time=minutes(secondsLeft))
        self.say(text)

    def _finish(self, node: Any) -> None:
        self.result, self._isKept = node, False
        self._follows = False
        self._followResult()
        self._end()
        text = _("Done in {seconds:.1f} s: {name}. Move the threshold to change the result.")
        seconds = time.monotonic() - self._started
        self._sayWithNote(text.format(seconds=seconds, name=node.GetName()))

    def _takeOffer(self, offer: Offer) -> None:
        wanted = (self.parameter.task, self.parameter.bundle) if self.parameter else ("", "")
        self.choice.offer(offer.tasks, *wanted)
        self.onOffer(offer)
        self.onTask()

    def _refined(self, _node: Any) -> None:
        self._sayWithNote(_("Threshold {value:g}").format(value=self._threshold))

    def _exported(self, file: str) -> None:
        self._end()
        self._sayWithNote(_("Written: {file}").format(file=file))

    def _failed(self, message: str, remedy: str) -> None:
        self._isKept = self.result is not None and self.runs.isEdited
        self._end()
        self.fail(message, remedy)

    def _cancelled(self) -> None:
        self._end()
        if self._warnings:
            self._sayWithNote(_("Cancelled."))
        else:
            self.say(_("Cancelled. The segmentation is as it was before the run."))

    def _warn(self, texts: list[str]) -> None:
        """Keep the notes on how the pictures were read until the next run; log them all."""
        self._warnings = texts
        for text in texts:
            self.ui.logTextEdit.appendPlainText(_("Note: {text}").format(text=text))

    def _sayWithNote(self, text: str) -> None:
        """Show a status line, and below it a note on how the images were read."""
        if not self._warnings:
            self.say(text)
            return
        self.say(f"{html.escape(text, quote=False)}<br>{note(self._warnings)}")
        self.ui.statusLabel.toolTip = "\n".join(self._warnings)

    def _end(self) -> None:
        ran, self.running = self.running, False
        if ran:  # another environment may have been chosen meanwhile
            with contextlib.suppress(EnvironmentProblem):  # `refresh` says so
                self.askForTasks(self.command())
        self.refresh()

    def _connect(self) -> None:
        for name, slot in (
            ("applyButton", self.onApply),
            ("undoButton", self.onUndo),
            ("exportButton", self.onExport),
            ("show3DButton", self.onShow3D),
            ("editButton", self.onEdit),
            ("statisticsButton", self.onStatistics),
            ("startAgainButton", self.onStartAgain),
            ("copyLogButton", self.onCopyLog),
        ):
            getattr(self.ui, name).clicked.connect(slot)
        self.ui.deviceComboBox.currentIndexChanged.connect(self.onDevice)
        self.ui.forceCheckBox.toggled.connect(self.refresh)
        self.ui.weightsPath.currentPathChanged.connect(self.onWeights)
        self.ui.outputSelector.currentNodeChanged.connect(self._refreshResult)
        for name in ("thresholdSlider", "minimumSizeSpinBox", "smoothingSpinBox"):
            getattr(self.ui, name).valueChanged.connect(self.onRefinement)
        self.ui.keepLargestCheckBox.toggled.connect(self.onRefinement)


def devices(platform: str) -> list[tuple[str, str]]:
    """Return the devices that a platform can have: their names, and what the user reads."""
    found = [("auto", _("Automatic")), ("cpu", _("CPU"))]
    if platform == "darwin":
        return [*found, ("mps", _("Apple GPU"))]
    return [*found, ("cuda", _("NVIDIA GPU"))]
