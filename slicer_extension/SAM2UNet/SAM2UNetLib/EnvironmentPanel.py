"""The tab Setup: builds, repairs and removes the environment, or uses an existing one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctk
import qt
import slicer

from .BackgroundProcess import BackgroundProcess, cleanEnvironment
from .Environment import (
    EnvironmentProblem,
    ExistingEnvironment,
    OwnEnvironment,
    State,
    dataFolder,
    slicerPython,
)
from .EnvironmentBuilder import EnvironmentBuilder
from .EnvironmentPlan import (
    TORCH_BUILDS,
    Plan,
    chooseTorch,
    driverCuda,
    makePlan,
    readDoctor,
    torchBuild,
)
from .ModelsPanel import ModelsPanel
from .Settings import keep, setting, startupVariables
from .Texts import _

POLL_MS = 100


class EnvironmentPanel:
    """Binds the tab to the environment.

    Args:
        ui: the panel's widgets by name.
        source: folder with the sources that came with the module; None takes the released package.
        base: Python that builds the environment.
        onChange: called when another environment, or none, is to be used from now on.
        onRelease: called before the folder is cleared: what runs in it must be ended.
    """

    def __init__(
        self,
        ui: Any,
        *,
        source: Path | None,
        base: Path | None = None,
        onChange: Callable[[], None] = lambda: None,
        onRelease: Callable[[], None] = lambda: None,
    ) -> None:
        self.ui = ui
        self.source = source
        self.base = base or slicerPython()
        self.onChange = onChange
        self.onRelease = onRelease
        self.builder: EnvironmentBuilder | None = None
        self.check: BackgroundProcess | None = None
        self.models = ModelsPanel(ui)
        self._answer: list[str] = []
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MS
        self._timer.timeout.connect(self.onTimer)
        self._fill()
        self._connect()
        self.refresh()

    def command(self) -> list[str]:
        """Return the command that starts `sam2unet`.

        Raises:
            EnvironmentProblem: there is no environment that can be used; says what to do.
        """
        if self.builder is not None:
            raise EnvironmentProblem(_("The environment is being built."))
        if self.ui.existingRadioButton.checked:
            return ExistingEnvironment(Path(self.ui.pythonPath.currentPath)).command()
        return self.own.command()

    @property
    def own(self) -> OwnEnvironment:
        """The environment of this module, at the chosen folder."""
        text = self.ui.environmentPath.currentPath
        return OwnEnvironment(Path(text) if text else dataFolder() / "environment")

    def refresh(self) -> None:
        """Show what there is and what can be done."""
        busy = self.builder is not None or self.check is not None
        own = not self.ui.existingRadioButton.checked
        state = self.own.state()
        self.ui.ownGroupBox.enabled = own
        self.ui.existingGroupBox.enabled = not own and not busy
        for widget in (self.ui.environmentPath, self.ui.torchComboBox, self.ui.wheelsPath):
            widget.enabled = not busy
        self.ui.ownRadioButton.enabled = self.ui.existingRadioButton.enabled = not busy
        self.ui.buildButton.enabled = not busy and state is not State.FOREIGN
        self.ui.buildButton.text = {
            State.READY: _("Rebuild..."),
            State.INTERRUPTED: _("Repair..."),
        }.get(state, _("Build..."))
        self.ui.removeButton.enabled = not busy and state in (State.READY, State.INTERRUPTED)
        self.ui.environmentCancelButton.enabled = busy
        self.ui.environmentProgressBar.visible = self.builder is not None
        if not busy and own:
            self.ui.planLabel.text = self._describe(state)
        self.models.refresh()

    def close(self) -> None:
        """Stop what runs, before the module is removed."""
        self._timer.stop()
        if self.builder is not None:
            self.builder.cancel()
        if self.check is not None:
            self.check.stop()

    def onBuild(self) -> None:
        """Show what the build does and needs; start it if the user agrees."""
        plan = self.plan()
        if plan.problem:
            self._say(plan.problem)
            return
        if not slicer.util.confirmOkCancelDisplay(plan.text(), _("Build the environment?")):
            return
        self.ui.environmentLogTextEdit.clear()
        self.onRelease()
        builder = EnvironmentBuilder(plan, variables=startupVariables())
        try:
            builder.start()
        except (EnvironmentProblem, OSError) as error:
            self._say(str(error))
            return
        self.builder = builder
        self.onChange()  # what the old environment runs is ended
        self._timer.start()
        self.refresh()

    def plan(self) -> Plan:
        """Return what building would do with the settings of the tab."""
        wheels = self.ui.wheelsPath.currentPath
        return makePlan(
            self.own,
            self.base,
            source=self.source,
            wheels=Path(wheels) if wheels else None,
            torch=torchBuild(self.ui.torchComboBox.itemData(self.ui.torchComboBox.currentIndex)),
        )

    def onRemove(self) -> None:
        """Ask, then remove the folder of the environment."""
        question = _("Remove {folder} and everything in it?").format(folder=self.own.folder)
        if not slicer.util.confirmOkCancelDisplay(question, _("Remove the environment?")):
            return
        own = self.own
        self.onRelease()
        try:
            own.remove()
        except EnvironmentProblem as error:
            self._say(str(error))
        else:
            self._say(_("The environment was removed."))
        self.refresh()
        self.onChange()

    def onCheck(self) -> None:
        """Ask the chosen Python whether the software can run there; in the background."""
        try:
            words = ExistingEnvironment(Path(self.ui.pythonPath.currentPath)).command()
            self.check = BackgroundProcess(
                [*words, "doctor", "--json"], environment=cleanEnvironment(startupVariables())
            )
            self.check.start()
        except (EnvironmentProblem, OSError) as error:
            self.check = None
            self._say(str(error))
            return
        self._answer = []
        self._say(_("Checking that Python..."))
        self._timer.start()
        self.refresh()

    def onCancel(self) -> None:
        """Stop the build or the question."""
        events = self.builder.cancel() if self.builder is not None else []
        if self.check is not None:
            self.check.stop()
            self.check = None
            self._say(_("Cancelled."))
        self._show(events)

    def onTimer(self) -> None:
        """Show what happened since the last call."""
        if self.builder is not None:
            self._show(self.builder.poll())
        elif self.check is not None:
            self._answer += self.check.poll()
            if self.check.returncode is not None:
                self.check = None
                works, found = readDoctor(self._answer)
                self._say(found)
                self._timer.stop()
                self.refresh()
                if works:
                    self.onChange()
        else:
            self._timer.stop()

    def _show(self, events: list[tuple]) -> None:
        for kind, *content in events:
            if kind == "line":
                self.ui.environmentLogTextEdit.appendPlainText(content[0])
            elif kind == "progress":
                self.ui.environmentProgressBar.value = int(1000 * content[0])
            elif kind == "step":
                number, count, label = content
                text = _("Step {number} of {count}: {label}")
                self._say(text.format(number=number, count=count, label=label))
            else:
                self._end(kind, content)

    def _end(self, kind: str, content: list[str]) -> None:
        self._timer.stop()
        self.builder = None
        if kind == "finished":
            self._say(_("The environment is ready: {found}.").format(found=content[0]))
        elif kind == "failed":
            self._say("{} {}".format(*content))
        else:
            self._say(_("Cancelled. Repair starts the build again."))
        self.refresh()
        self.onChange()

    def _say(self, text: str) -> None:
        self.ui.environmentStatusLabel.text = text

    def _describe(self, state: State) -> str:
        own = self.own
        if state is State.READY:
            return _("Ready: {found}. Built {when}.").format(
                found=own.marker.get("found", ""), when=own.marker.get("when", "")
            )
        if state is State.INTERRUPTED:
            return _("The build of the environment was interrupted. Repair starts it again.")
        if state is State.FOREIGN:
            return _("This folder contains other files. Choose another one.")
        return _("There is no environment yet. Build shows what it will do before it starts.")

    def _fill(self) -> None:
        self.ui.environmentPath.filters = ctk.ctkPathLineEdit.Dirs
        self.ui.wheelsPath.filters = ctk.ctkPathLineEdit.Dirs
        self.ui.pythonPath.filters = ctk.ctkPathLineEdit.Files
        for build in TORCH_BUILDS:
            self.ui.torchComboBox.addItem(build.label, build.name)
        suits, reason = chooseTorch(sys.platform, driverCuda())
        wanted = setting("torch", suits.name)
        self.ui.torchComboBox.currentIndex = max(0, self.ui.torchComboBox.findData(wanted))
        self.ui.torchComboBox.toolTip = reason
        folder = setting("folder", str(dataFolder() / "environment"))
        self.ui.environmentPath.currentPath = folder
        self.ui.wheelsPath.currentPath = setting("wheels", "")
        self.ui.pythonPath.currentPath = setting("python", "")
        existing = setting("kind", "own") == "existing"
        self.ui.existingRadioButton.checked = existing
        self.ui.ownRadioButton.checked = not existing

    def _connect(self) -> None:
        self.ui.buildButton.clicked.connect(self.onBuild)
        self.ui.removeButton.clicked.connect(self.onRemove)
        self.ui.checkButton.clicked.connect(self.onCheck)
        self.ui.environmentCancelButton.clicked.connect(self.onCancel)
        self.ui.copyEnvironmentLogButton.clicked.connect(self.onCopyLog)
        self.ui.existingRadioButton.toggled.connect(self.onSetting)
        self.ui.torchComboBox.currentIndexChanged.connect(self.onSetting)
        for path in (self.ui.environmentPath, self.ui.wheelsPath, self.ui.pythonPath):
            path.currentPathChanged.connect(self.onSetting)

    def onCopyLog(self) -> None:
        """Put the log of the build on the clipboard."""
        slicer.app.clipboard().setText(self.ui.environmentLogTextEdit.plainText)

    def onSetting(self) -> None:
        """Keep the settings for the next start of Slicer."""
        keep("kind", "existing" if self.ui.existingRadioButton.checked else "own")
        keep("folder", self.ui.environmentPath.currentPath)
        keep("wheels", self.ui.wheelsPath.currentPath)
        keep("python", self.ui.pythonPath.currentPath)
        keep("torch", self.ui.torchComboBox.itemData(self.ui.torchComboBox.currentIndex) or "")
        self.refresh()
        self.onChange()
