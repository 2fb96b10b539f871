"""The whole panel: three tabs that share one environment, and a banner while there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .BatchPanel import BatchPanel
from .Collaborators import RunControl
from .Environment import EnvironmentProblem
from .EnvironmentPanel import EnvironmentPanel
from .SegmentPanel import SegmentPanel
from .Tasks import Offer
from .Texts import _

SETUP_TAB = 2


class Panel:
    """Binds the form to what it can do.

    Args:
        ui: the widgets by name.
        runs: does the work.
        source: folder with the sources that came with the module, or None.
    """

    def __init__(self, ui: Any, *, runs: RunControl, source: Path | None) -> None:
        self.ui = ui
        self.runs = runs
        self.environment = EnvironmentPanel(
            ui,
            source=source,
            onChange=self.onEnvironment,
            onRelease=self.release,
        )
        self.segment = SegmentPanel(
            ui, runs=runs, command=self.environment.command, onOffer=self.onOffer
        )
        self.batch = BatchPanel(
            ui,
            command=self.environment.command,
            options=self.segment.batchOptions,
            summary=self.segment.batchSummary,
            confirm=self.segment.choice.confirm,
        )
        self.gui: Any = None
        self.parameter: Any = None
        ui.bannerLabel.linkActivated.connect(self.onLink)
        ui.setUpButton.clicked.connect(self.onSetUp)
        ui.tabWidget.currentChanged.connect(self.onTab)
        self.onEnvironment()

    def follow(self, parameter: Any) -> None:
        """Bind the widgets to the choices of a parameter node; None leaves them alone."""
        self.segment.follow(None)
        if self.parameter is not None:
            self.parameter.disconnectGui(self.gui)
        self.parameter = parameter
        if parameter is not None:
            self.gui = parameter.connectGui(self.ui)
            self.segment.follow(parameter)

    def enter(self) -> None:
        """The module is shown: look at the environment again, ask it for its tasks."""
        self.environment.refresh()
        self.onEnvironment()

    def forget(self) -> None:
        """The scene is closing: end a run and keep nothing of the scene."""
        self.follow(None)
        self.runs.forget()
        self.segment.forget()

    def endRuns(self) -> None:
        """End all that runs in the environment, and show it."""
        self.runs.close()
        self.segment.forget()

    def release(self) -> None:
        """The environment's folder is about to be cleared: end all that runs in it."""
        self.endRuns()
        self.batch.onCancel()

    def close(self) -> None:
        """Stop what runs."""
        self.segment.close()
        self.batch.close()
        self.environment.close()

    def onEnvironment(self) -> None:
        """Another environment, or none: say so, and ask it for its tasks."""
        try:
            command = self.environment.command()
        except EnvironmentProblem as error:
            link = _("Open Setup").replace(" ", "&nbsp;")
            style = "color: #533f03"  # legible on the banner in dark styles too
            self.ui.bannerLabel.text = f"{error} <a href='setup' style='{style}'>{link}</a>"
            self.ui.bannerLabel.visible = True
            elsewhere = self.ui.tabWidget.currentIndex != SETUP_TAB  # where there is one already
            self.ui.setUpButton.visible = elsewhere and self.environment.canSetUp
            self.ui.setUpButton.text = self.environment.setUpText
            self.ui.setUpButton.enabled = self.ui.buildButton.enabled
            self.ui.setUpButton.toolTip = self.ui.buildButton.toolTip
            self.endRuns()
        else:
            self.ui.bannerLabel.visible = self.ui.setUpButton.visible = False
            self.segment.askForTasks(command)
        self.segment.refresh()

    def onOffer(self, offer: Offer) -> None:
        """The environment said what it offers; the tab Segment has taken its tasks."""
        self.batch.offer(offer.formats)

    def onSetUp(self) -> None:
        """Build the environment, and show how far it is."""
        self.ui.tabWidget.currentIndex = SETUP_TAB
        self.environment.onBuild()

    def onTab(self, _index: int = 0) -> None:
        """Another tab is shown: the tab Folder says what it will use."""
        self.batch.refresh()
        self.onEnvironment()

    def onLink(self, _link: str = "") -> None:
        """Open the tab Setup."""
        self.ui.tabWidget.currentIndex = SETUP_TAB
