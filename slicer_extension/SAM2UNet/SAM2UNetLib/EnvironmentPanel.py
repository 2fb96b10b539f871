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
    DriverQuestion,
    Plan,
    TorchBuild,
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
        self._driver = DriverQuestion(driverCuda)
        self._answer: list[str] = []
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MS
        self._timer.timeout.connect(self.onTimer)
        self._fill()
        self._connect()
        self.refresh()
        self._timer.start()

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
        self.ui.buildButton.enabled = busy or (own and self._driver.answered and not self.trouble)
        self.ui.buildButton.text = _("Cancel") if busy else self.setUpText
        self.ui.buildButton.toolTip = self.trouble or (
            _("Stop it.") if busy else _("Shows what it will do, and asks, before it begins.")
        )
        removable = state in (State.READY, State.INTERRUPTED)
        self.ui.removeButton.enabled = not busy and removable
        self.ui.removeButton.toolTip = (
            _("Remove the environment's folder.")
            if removable
            else _("There is no environment of this module at that folder.")
        )
        python = bool(self.ui.pythonPath.currentPath)
        self.ui.checkButton.enabled = python
        self.ui.checkButton.toolTip = (
            _("Check whether sam2unet can run in that environment.")
            if python
            else _("Choose the environment's Python first.")
        )
        self.ui.environmentProgressBar.visible = self.builder is not None
        if not busy and own:
            self.ui.planLabel.text = self._describe(state)
        self.models.refresh()

    @property
    def trouble(self) -> str:
        """Why nothing can be set up at the chosen folder; empty if it can."""
        if self.own.state() is State.FOREIGN and not self.ui.existingRadioButton.checked:
            return _("This folder contains other files. Choose another one under Advanced.")
        return ""

    @property
    def canSetUp(self) -> bool:
        """Whether an environment of this module is missing, and none is being built."""
        busy = self.builder is not None or self.check is not None
        return not busy and not self.ui.existingRadioButton.checked

    @property
    def setUpText(self) -> str:
        """What the button says that builds the environment: also how much that takes."""
        if self.ui.existingRadioButton.checked:
            return _("Set up...")
        if not self._driver.answered:
            return _("Looking at this computer...")
        state = self.own.state()
        if state is State.READY:
            return _("Set up again...")
        if state is State.INTERRUPTED:
            return _("Repair...")
        if self.ui.wheelsPath.currentPath:
            return _("Set up (from the folder of wheels)...")
        size = self._torch.downloadMb / 1000
        return _("Set up (about {size:.1f} GB)...").format(size=size)

    @property
    def _torch(self) -> TorchBuild:
        return torchBuild(self.ui.torchComboBox.itemData(self.ui.torchComboBox.currentIndex))

    def close(self) -> None:
        """Stop what runs, before the module is removed."""
        self._timer.stop()
        if self.builder is not None:
            self.builder.cancel()
        if self.check is not None:
            self.check.stop()

    def onBuild(self) -> None:
        """Show what the build does and needs, start it if the user agrees; cancel what runs."""
        if self.builder is not None or self.check is not None:
            self.onCancel()
            return
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
            torch=self._torch,
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
        if self._driver.poll():
            self._chooseTorch(self._driver.cuda)
            self.refresh()
            self.onChange()
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
        elif self._driver.answered:
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
            return self.trouble
        if not self._driver.answered:
            return ""
        plan = self.plan()
        return plan.problem or plan.needs()

    def _fill(self) -> None:
        self.ui.environmentPath.filters = ctk.ctkPathLineEdit.Dirs
        self.ui.wheelsPath.filters = ctk.ctkPathLineEdit.Dirs
        self.ui.pythonPath.filters = ctk.ctkPathLineEdit.Files
        for build in TORCH_BUILDS:
            self.ui.torchComboBox.addItem(build.label, build.name)
        self._chooseTorch(None)
        folder = setting("folder", str(dataFolder() / "environment"))
        self.ui.environmentPath.currentPath = folder
        self.ui.wheelsPath.currentPath = setting("wheels", "")
        self.ui.pythonPath.currentPath = setting("python", "")
        existing = setting("kind", "own") == "existing"
        self.ui.existingRadioButton.checked = existing
        self.ui.ownRadioButton.checked = not existing

    def _chooseTorch(self, cuda: tuple[int, int] | None) -> None:
        """Choose the build of PyTorch that suits the driver, unless the user chose another."""
        suits, reason = chooseTorch(sys.platform, cuda)
        wanted = setting("torch", "") or suits.name
        self.ui.torchComboBox.blockSignals(True)
        self.ui.torchComboBox.currentIndex = max(0, self.ui.torchComboBox.findData(wanted))
        self.ui.torchComboBox.blockSignals(False)
        self.ui.torchComboBox.toolTip = reason

    def _connect(self) -> None:
        self.ui.buildButton.clicked.connect(self.onBuild)
        self.ui.removeButton.clicked.connect(self.onRemove)
        self.ui.checkButton.clicked.connect(self.onCheck)
        self.ui.copyEnvironmentLogButton.clicked.connect(self.onCopyLog)
        self.ui.existingRadioButton.toggled.connect(self.onSetting)
        self.ui.torchComboBox.currentIndexChanged.connect(self.onTorch)
        for path in (self.ui.environmentPath, self.ui.wheelsPath, self.ui.pythonPath):
            path.currentPathChanged.connect(self.onSetting)

    def onCopyLog(self) -> None:
        """Put the log of the build on the clipboard."""
        slicer.app.clipboard().setText(self.ui.environmentLogTextEdit.plainText)

    def onTorch(self) -> None:
        """The user chose a build of PyTorch."""
        keep("torch", self.ui.torchComboBox.itemData(self.ui.torchComboBox.currentIndex) or "")
        self.onSetting()

    def onSetting(self) -> None:
        """Keep the settings for the next start of Slicer."""
        keep("kind", "existing" if self.ui.existingRadioButton.checked else "own")
        keep("folder", self.ui.environmentPath.currentPath)
        keep("wheels", self.ui.wheelsPath.currentPath)
        keep("python", self.ui.pythonPath.currentPath)
        self.refresh()
        self.onChange()
