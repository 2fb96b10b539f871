"""The downloaded weights: their size on disk, and a button that removes them."""

from __future__ import annotations

import shutil
from typing import Any

import slicer

from .Environment import modelFolder
from .Texts import _


class ModelsPanel:
    """Binds the last row of the tab Setup.

    Args:
        ui: the panel's widgets by name.
    """

    def __init__(self, ui: Any) -> None:
        self.ui = ui
        ui.clearModelsButton.clicked.connect(self.onClear)

    def refresh(self) -> None:
        """Show the size of the weights on disk."""
        files = [file for file in modelFolder().rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files) / 1e6
        self.ui.modelsLabel.text = _("Downloaded weights: {size} MB").format(size=round(size))
        self.ui.clearModelsButton.enabled = bool(files)

    def onClear(self) -> None:
        """Ask, then remove them."""
        folder = modelFolder()
        question = _("Remove the downloaded weights in {folder}?").format(folder=folder)
        if slicer.util.confirmOkCancelDisplay(question, _("Clear models?")):
            shutil.rmtree(folder, ignore_errors=True)
        self.refresh()
