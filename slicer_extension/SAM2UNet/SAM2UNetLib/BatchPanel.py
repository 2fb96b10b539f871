"""The tab Folder: runs the batch tool over a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ctk
import qt

from .Batch import Batch, BatchRequest, BatchState
from .Environment import EnvironmentProblem
from .Settings import keep, setting, startupVariables
from .Tasks import FormatEntry
from .Texts import _, counts, minutes

POLL_MS = 200
AUTO = "auto"
"""The format that `sam2unet segment` chooses for each input."""


class BatchPanel:
    """Binds the tab to a batch run.

    Args:
        ui: the panel's widgets by name.
        command: returns the command that starts `sam2unet`, or raises EnvironmentProblem.
        options: returns the choices of the first tab: task, bundle, weights, device, force.
        summary: returns them for the user.
        confirm: asks whether a bundle that came with a scene is trusted.
    """

    def __init__(
        self,
        ui: Any,
        *,
        command: Callable[[], list[str]],
        options: Callable[[], dict[str, Any]],
        summary: Callable[[], str] = str,
        confirm: Callable[[], bool] = lambda: True,
    ) -> None:
        self.ui = ui
        self.command = command
        self.options = options
        self.summary, self.confirm = summary, confirm
        self.batch: Batch | None = None
        self.report: Path | None = None
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MS
        self._timer.timeout.connect(self.onTimer)
        self.ui.batchInputPath.filters = ctk.ctkPathLineEdit.Dirs
        self.ui.batchOutputPath.filters = ctk.ctkPathLineEdit.Dirs
        for value, label in (
            ("auto", _("Keep image names, pseudonymize DICOM")),
            ("pseudonymize", _("Pseudonymize all")),
            ("keep", _("Keep all names")),
        ):
            self.ui.batchNamesComboBox.addItem(label, value)
        self.offer(())
        self.ui.batchInputPath.currentPath = setting("batchInput", "")
        self.ui.batchOutputPath.currentPath = setting("batchOutput", "")
        self.ui.batchInputPath.currentPathChanged.connect(self.refresh)
        self.ui.batchOutputPath.currentPathChanged.connect(self.refresh)
        self.ui.batchRunButton.clicked.connect(self.onRun)
        self.ui.batchCancelButton.clicked.connect(self.onCancel)
        self.ui.batchReportButton.clicked.connect(self.onReport)
        self.refresh()

    @property
    def formats(self) -> str:
        """The ticked formats, as `--format` takes them."""
        items = [self.ui.batchFormatList.item(row) for row in range(self.ui.batchFormatList.count)]
        ticked = [item.data(qt.Qt.UserRole) for item in items if item.checkState() == qt.Qt.Checked]
        return ",".join(ticked) or AUTO

    def offer(self, formats: Sequence[FormatEntry]) -> None:
        """List the formats of the environment; those that were ticked stay so."""
        before = self.formats.split(",")
        self.ui.batchFormatList.clear()
        for each in (FormatEntry(AUTO, _("the usual formats of each input")), *formats):
            text = f"{each.name}: {each.help}"
            item = qt.QListWidgetItem(text)
            item.setToolTip(text)
            item.setData(qt.Qt.UserRole, each.name)
            item.setCheckState(qt.Qt.Checked if each.name in before else qt.Qt.Unchecked)
            self.ui.batchFormatList.addItem(item)

    def refresh(self) -> None:
        """Enable what can be done now."""
        running = self.batch is not None
        chosen = bool(self.ui.batchInputPath.currentPath and self.ui.batchOutputPath.currentPath)
        self.ui.batchRunButton.enabled = chosen and not running
        self.ui.batchRunButton.toolTip = (
            _("Segment the whole folder in the background.")
            if chosen
            else _("Choose both folders first.")
        )
        self.ui.batchCancelButton.enabled = running
        self.ui.batchCancelButton.toolTip = (
            _("Stop the run. Finished results are kept.") if running else _("Nothing runs.")
        )
        self.ui.batchReportButton.enabled = self.report is not None
        self.ui.batchReportButton.toolTip = (
            _("Open the report in the browser.")
            if self.report is not None
            else _("There is a report when the run has ended.")
        )
        self.ui.batchTaskLabel.text = self.summary()
        self.ui.batchProgressBar.visible = running

    def close(self) -> None:
        """Stop what runs, before the module is removed."""
        self._timer.stop()
        if self.batch is not None:
            self.batch.cancel()

    def onRun(self) -> None:
        """Begin."""
        if not self.confirm():
            return
        source = self.ui.batchInputPath.currentPath
        output = self.ui.batchOutputPath.currentPath
        keep("batchInput", source)
        keep("batchOutput", output)
        request = BatchRequest(
            Path(source),
            Path(output),
            formats=self.formats,
            names=self.ui.batchNamesComboBox.itemData(self.ui.batchNamesComboBox.currentIndex),
            **self.options(),
        )
        try:
            batch = Batch(self.command(), request, variables=startupVariables())
            batch.start()
        except (EnvironmentProblem, OSError) as error:
            self._say(str(error))
            return
        self.batch = batch
        self.report = None
        self.ui.batchLogTextEdit.clear()
        self._say(_("Looking for inputs..."))
        self._timer.start()
        self.refresh()

    def onCancel(self) -> None:
        """Stop; finished results are kept."""
        if self.batch is not None:
            self._show(self.batch.cancel())

    def onReport(self) -> None:
        """Open the report in the browser."""
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.report)))

    def onTimer(self) -> None:
        """Show what happened since the last call."""
        if self.batch is not None:
            self._show(self.batch.poll())

    def _show(self, events: list[tuple]) -> None:
        for kind, *content in events:
            if kind == "line":
                self.ui.batchLogTextEdit.appendPlainText(content[0])
            elif kind == "state":
                self._showState(content[0])
            else:
                self._end(kind, content)

    def _showState(self, state: BatchState) -> None:
        self.ui.batchProgressBar.maximum = state.total or 0  # 0 shows that it works
        self.ui.batchProgressBar.value = min(state.count, state.total or 0)
        if not state.count:
            return
        text = _describe(state.done)
        if state.total:
            text = _("{done} of {total} files: {text}").format(
                done=state.count, total=state.total, text=text
            )
        if state.secondsLeft is not None:
            text += _(", about {time} left").format(time=minutes(state.secondsLeft))
        self._say(text + _details({}, state.warnings))

    def _end(self, kind: str, content: list[Any]) -> None:
        self._timer.stop()
        self.batch = None
        if kind == "finished":
            summary, self.report = content
            text = _("Done: {text}.").format(text=_describe(summary.get("statuses", {})))
            text += _details(summary.get("reasons", {}), summary.get("warnings", {}))
            if summary.get("stopped"):
                text += " " + str(summary["stopped"])
            self._say(text)
        elif kind == "failed":
            self._say("{}. {}".format(content[0].rstrip("."), content[1]))
        else:
            self._say(_("Cancelled. Finished results are kept; run again to resume."))
        self.refresh()
        if kind == "finished" and self.report is not None:
            self.onReport()

    def _say(self, text: str) -> None:
        self.ui.batchStatusLabel.text = text


def _describe(counts: Any) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or _("none")


def _details(reasons: Any, warnings: Any) -> str:
    """Return lines that count why files are not done, and the warnings of those that are."""
    text = "\n" + _("Not done: {text}.").format(text=counts(reasons)) if reasons else ""
    if warnings:
        text += "\n" + _("Warnings: {text}.").format(text=counts(warnings))
    return text
