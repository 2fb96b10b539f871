"""The list of tasks: greys what does not fit the image, says why, and lets it be forced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer

from .TaskCatalog import BundleProblem, TaskEntry, readBundle
from .Texts import _

Fits = Callable[[TaskEntry], tuple[bool, str]]


class TaskChoice:
    """Binds the combo box, the note below it and the button for other bundles.

    Args:
        ui: the panel's widgets by name.
        onChange: called when another task is chosen.
    """

    def __init__(self, ui: Any, *, onChange: Callable[[], None]) -> None:
        self.ui = ui
        self.onChange = onChange
        self.entries: list[TaskEntry] = []
        self._fits: dict[int, tuple[bool, str]] = {}
        self.ui.taskComboBox.currentIndexChanged.connect(self._changed)
        self.ui.bundleButton.clicked.connect(self.onBundle)

    @property
    def current(self) -> TaskEntry | None:
        """The chosen task."""
        index = self.ui.taskComboBox.currentIndex
        return self.entries[index] if 0 <= index < len(self.entries) else None

    @property
    def problem(self) -> str:
        """Why the chosen task cannot run on the image; empty if it can, or is forced to."""
        entry = self.current
        if entry is None:
            return _("Choose a task.")
        if not entry.hasWeights and not self.ui.weightsPath.currentPath:
            return _("This task has no weights here: choose a weights file under Advanced.")
        fits, _reason = self._fits.get(self.ui.taskComboBox.currentIndex, (True, ""))
        if fits or self.ui.forceCheckBox.checked:
            return ""
        return _("The task is not made for this image: choose another one, or offer it anyway.")

    def offer(self, entries: Sequence[TaskEntry], wanted: str = "") -> None:
        """Fill the list; bundles that were chosen before stay; choose the wanted task."""
        others = [entry for entry in self.entries if entry.bundle is not None]
        before = wanted or (self.current.name if self.current else "")
        self.entries = [*(entry for entry in entries if entry.bundle is None), *others]
        self.ui.taskComboBox.blockSignals(True)
        self.ui.taskComboBox.clear()
        for entry in self.entries:
            self.ui.taskComboBox.addItem(entry.title, entry.name)
        names = [entry.name for entry in self.entries]
        usable = [index for index, entry in enumerate(self.entries) if entry.hasWeights]
        first = usable[0] if usable else 0
        self.ui.taskComboBox.currentIndex = names.index(before) if before in names else first
        self.ui.taskComboBox.blockSignals(False)

    def refresh(self, fits: Fits) -> None:
        """Grey what does not fit and say why."""
        forced = self.ui.forceCheckBox.checked
        model = self.ui.taskComboBox.model()
        for index, entry in enumerate(self.entries):
            fitting, reason = fits(entry)
            self._fits[index] = (fitting, reason)
            label = entry.title if entry.hasWeights else _("{title} (no weights)")
            item = model.item(index)
            item.setText(label.format(title=entry.title))
            item.setEnabled(fitting or forced)
            item.setToolTip(reason if not fitting else entry.notice)
        self._note()

    def onBundle(self) -> None:
        """Choose a bundle folder, and ask before it is trusted."""
        folder = qt.QFileDialog.getExistingDirectory(None, _("Choose a bundle folder"))
        if not folder:
            return
        try:
            entry = readBundle(Path(folder))
        except BundleProblem as error:
            slicer.util.errorDisplay(str(error))
            return
        self.add(entry)

    def add(self, entry: TaskEntry) -> None:
        """Ask whether a bundle that did not come with the module is trusted; take it if so."""
        question = _(
            "The bundle {folder} did not come with this module. Its weights and task are read, and "
            "no code of it is run; what its network finds is for its makers to answer for. Use it?"
        ).format(folder=entry.bundle)
        if not slicer.util.confirmOkCancelDisplay(question, _("Use this bundle?")):
            return
        self.entries = [each for each in self.entries if each.bundle != entry.bundle]
        self.entries.append(entry)
        self.offer(self.entries, entry.name)
        self.ui.taskComboBox.currentIndex = len(self.entries) - 1
        self.onChange()

    def _changed(self) -> None:
        self._note()
        self.onChange()

    def _note(self) -> None:
        entry = self.current
        fits, reason = self._fits.get(self.ui.taskComboBox.currentIndex, (True, ""))
        notes = [] if fits else [reason]
        if not fits and self.ui.forceCheckBox.checked:
            notes.append(_("It is run all the same, and the result says so."))
        if entry is not None and entry.notice:
            notes.append(entry.notice[:1].upper() + entry.notice[1:] + ".")
        if entry is not None and entry.bundle is not None:
            notes.append(_("From {folder}.").format(folder=entry.bundle))
        self.ui.taskNoteLabel.text = " ".join(notes)
        self.ui.taskNoteLabel.visible = bool(notes)
