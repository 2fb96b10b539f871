"""The tab Segment: binds the widgets to the runs, which do the work.

The panel computes nothing: it starts runs, polls them from a timer, and shows what they report.
"""

from __future__ import annotations

import contextlib
import html
import time
from collections.abc import Callable
from typing import Any

import ctk
import qt
import slicer

from .Collaborators import PanelChoices, Report, RunControl
from .Environment import EnvironmentProblem
from .InputChoice import InputChoice
from .Settings import keep, setting
from .TaskChoice import TaskChoice
from .Tasks import Offer, TaskEntry
from .Texts import _, minutes, note

POLL_MS = 20
DEVICES = (
    ("auto", "Automatic"),
    ("cpu", "CPU"),
    ("cuda", "NVIDIA GPU"),
    ("mps", "Apple GPU"),
)


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
        self._warnings: list[str] = []
        self._started = 0.0
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MS
        self._timer.timeout.connect(self.onTimer)
        self.ui.weightsPath.filters = ctk.ctkPathLineEdit.Files
        for value, label in DEVICES:
            self.ui.deviceComboBox.addItem(_(label), value)
        index = self.ui.deviceComboBox.findData(setting("device", "auto"))
        self.ui.deviceComboBox.currentIndex = max(0, index)
        self.choice = TaskChoice(ui, onChange=self.onTask)
        self.input = InputChoice(ui, onChange=self.onInput)
        self._connect()

    def follow(self, parameter: PanelChoices | None) -> None:
        """Show and keep the choices that a parameter node holds; None follows nothing."""
        self.parameter = parameter
        self.input.follow(parameter)
        if parameter is not None:
            self.choice.offer(self.choice.entries, parameter.task)
            self.refresh()

    def refresh(self) -> None:
        """Enable what can be done now, and say what is missing for the rest."""
        self.input.refresh()
        self.choice.refresh(self._rejection, self._unchecked)
        if self.runs.busy:
            self._timer.start()
        problem = self.problem()
        self.ui.applyButton.enabled = not problem and not self.running
        self.ui.applyButton.toolTip = problem or _("Run the network.")
        self.ui.cancelButton.enabled = self.running
        self.ui.progressBar.visible = self.running
        self.ui.undoButton.enabled = not self.running and self.runs.canUndo
        self.ui.exportButton.enabled = not self.running and self.result is not None
        for name in ("inputSelector", "whatComboBox", "taskComboBox", "bundleButton"):
            getattr(self.ui, name).enabled = not self.running
        if problem and not self.running:
            self.say(problem)
        elif self.ui.statusLabel.text in (self._lastProblem, ""):
            self.say(_("Ready."))
        self._lastProblem = problem

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

    def close(self) -> None:
        """Stop what runs, before the module is removed."""
        self._timer.stop()
        self.input.stop()
        self.runs.close()
        self.running = False

    def forget(self) -> None:
        """The runs were ended from elsewhere: show no run and no result any more."""
        ended, self.running, self._refine, self.result = self.running, False, False, None
        self.refresh()
        if ended:
            self.say(_("The run was ended."))

    def onApply(self) -> None:
        """Begin a run."""
        try:
            self.runs.start(
                self.command(),
                entry=self.choice.current,
                parameter=self.parameter,
                between=self.input.between,
                weights=self.ui.weightsPath.currentPath or None,
                device=self.ui.deviceComboBox.itemData(self.ui.deviceComboBox.currentIndex),
            )
        except Exception as error:  # whatever it is, the panel stays usable
            self._end()
            self.fail(str(error), getattr(error, "remedy", "") or _("Copy the log."))
            return
        self._begin(_("Preparing..."))

    def onCancel(self) -> None:
        """Ask the run to stop; its last event says when it has."""
        self.say(_("Cancelling..."))
        self.ui.cancelButton.enabled = False
        self.runs.cancel()

    def onUndo(self) -> None:
        """Restore the segmentation as it was before the last run."""
        self.runs.undo()
        self.result, self._warnings = None, []
        self.refresh()
        self.say(_("Undone: the segmentation is as it was before the run."))

    def onExport(self) -> None:
        """Write the result as a DICOM object, through the worker."""
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder for the DICOM SEG"))
        if not folder:
            return
        try:
            self.runs.exportDicomSeg(self.result, folder)
        except Exception as error:
            self.fail(str(error), getattr(error, "remedy", ""))
            return
        self._begin(_("Writing DICOM SEG..."))

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
            self.runs.rethreshold(self.parameter)
        if not self.running and not self.runs.busy:
            self._timer.stop()

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
        """Another image, or another part of it."""
        if not self.running:
            self.refresh()

    def onTask(self) -> None:
        """Another task: its own threshold is offered."""
        entry = self.choice.current
        if entry is not None and self.parameter is not None and self.parameter.task != entry.name:
            self.parameter.task = entry.name
            self.parameter.bundle = str(entry.bundle or "")
            self.parameter.threshold = entry.threshold
        self.refresh()

    def onDevice(self) -> None:
        """Another device; Slicer keeps it for this user."""
        chosen = self.ui.deviceComboBox.itemData(self.ui.deviceComboBox.currentIndex)
        keep("device", chosen or "auto")

    def onRefinement(self) -> None:
        """A slider was moved: the last result follows, without the network."""
        if self.result is not None and self.runs.canRefine:
            self._refine = True
            self._timer.start()

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
        self.ui.progressBar.maximum = 0  # shows that it works until there is a count
        self.refresh()
        self.say(text)
        self._timer.start()

    def _progress(self, done: int, total: int, secondsLeft: float | None) -> None:
        self.ui.progressBar.maximum, self.ui.progressBar.value = total, done
        text = _("{done} of {total}").format(done=done, total=total)
        if secondsLeft is not None and done < total:
            text += _(", about {time} left").format(time=minutes(secondsLeft))
        self.say(text)

    def _finish(self, node: Any) -> None:
        self.result = node
        self._end()
        text = _("Done in {seconds:.1f} s: {name}. Move the threshold to change the result.")
        seconds = time.monotonic() - self._started
        self._sayWithNote(text.format(seconds=seconds, name=node.GetName()))

    def _takeOffer(self, offer: Offer) -> None:
        self.choice.offer(offer.tasks, self.parameter.task if self.parameter else "")
        self.onOffer(offer)
        self.onTask()

    def _refined(self, _node: Any) -> None:
        self._sayWithNote(_("Threshold {value:g}").format(value=self._threshold))

    def _exported(self, file: str) -> None:
        self._end()
        self._sayWithNote(_("Written: {file}").format(file=file))

    def _failed(self, message: str, remedy: str) -> None:
        self._end()
        self.fail(message, remedy)

    def _cancelled(self) -> None:
        self._end()
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
            ("cancelButton", self.onCancel),
            ("undoButton", self.onUndo),
            ("exportButton", self.onExport),
            ("copyLogButton", self.onCopyLog),
        ):
            getattr(self.ui, name).clicked.connect(slot)
        self.ui.deviceComboBox.currentIndexChanged.connect(self.onDevice)
        self.ui.forceCheckBox.toggled.connect(self.refresh)
        self.ui.weightsPath.currentPathChanged.connect(self.refresh)
        for name in ("thresholdSlider", "minimumSizeSpinBox", "smoothingSpinBox"):
            getattr(self.ui, name).valueChanged.connect(self.onRefinement)
        self.ui.keepLargestCheckBox.toggled.connect(self.onRefinement)
