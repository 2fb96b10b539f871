"""The list of tasks: tasks that are not made for the image are grey, and can be forced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer

from .Tasks import BundleProblem, TaskEntry, readBundle
from .Texts import _

Judge = Callable[[TaskEntry], str]
"""Returns why a task is not made for the image; empty where it is, or while it is not known."""


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
        self._trusted: set[Path] = set()
        self._missing = ""
        self._rejections: list[str] = []
        self._unchecked = ""
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
            return self._missing or _("Choose a task.")
        if not entry.hasWeights and not self.ui.weightsPath.currentPath:
            return _("This task has no weights here: choose a weights file under Advanced.")
        if not self._rejection or self.ui.forceCheckBox.checked:
            return ""
        return _(
            "This task is not made for this image. Choose another task, or tick the box that "
            "allows it."
        )

    def offer(self, entries: Sequence[TaskEntry], wanted: str = "", bundle: str = "") -> None:
        """Fill the list; bundles that were chosen before stay; choose the wanted task."""
        others = [entry for entry in self.entries if entry.bundle is not None]
        self.entries = [*(entry for entry in entries if entry.bundle is None), *others]
        self._fill()
        self.show(wanted, bundle)

    def show(self, name: str, bundle: str = "") -> None:
        """Choose a task, as a scene says it; another one is never taken in its place.

        Args:
            name: of the task; empty takes the first that has weights.
            bundle: its folder, if it did not come with the module.
        """
        self._missing = ""
        if bundle and Path(bundle) not in [entry.bundle for entry in self.entries]:
            try:
                self.entries.append(readBundle(Path(bundle)))
                self._fill()
            except BundleProblem as error:
                self._missing = _("The scene was made with another bundle. {reason}").format(
                    reason=error
                )
        wanted = [
            index
            for index, entry in enumerate(self.entries)
            if str(entry.bundle or "") == bundle and (entry.name == name or not name)
        ]
        usable = [index for index in wanted if self.entries[index].hasWeights]
        index = (usable or wanted or [-1])[0]
        if index < 0 and name and self.entries:
            self._missing = self._missing or _(
                "The scene asks for the task {name}, which this environment does not offer. "
                "Choose another task."
            ).format(name=name)
        self.ui.taskComboBox.blockSignals(True)
        self.ui.taskComboBox.currentIndex = index
        self.ui.taskComboBox.blockSignals(False)
        self._note()

    def _fill(self) -> None:
        self.ui.taskComboBox.blockSignals(True)
        self.ui.taskComboBox.clear()
        for entry in self.entries:
            self.ui.taskComboBox.addItem(entry.title, entry.name)
        self.ui.taskComboBox.blockSignals(False)

    def refresh(self, judge: Judge, unchecked: Judge) -> None:
        """Grey the tasks that are not made for the image, and say why.

        Args:
            judge: returns why a task is not made for the image.
            unchecked: returns what about the image could not be checked for a task.
        """
        forced = self.ui.forceCheckBox.checked
        model = self.ui.taskComboBox.model()
        self._rejections = [judge(entry) for entry in self.entries]
        for index, (entry, rejection) in enumerate(
            zip(self.entries, self._rejections, strict=True)
        ):
            label = entry.title if entry.hasWeights else _("{title} (no weights)")
            item = model.item(index)
            item.setText(label.format(title=entry.title))
            item.setEnabled(not rejection or forced)
            item.setToolTip(_sentence(rejection or entry.notice))
        self.ui.forceCheckBox.visible = forced or bool(self._rejection)
        self._unchecked = "" if self.current is None else unchecked(self.current)
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

    def confirm(self) -> bool:
        """Return whether the chosen task may run; ask where its bundle came with a scene."""
        entry = self.current
        return entry is None or entry.bundle in (None, *self._trusted) or self._trust(entry)

    def add(self, entry: TaskEntry) -> None:
        """Ask whether a bundle that did not come with the module is trusted; take it if so."""
        if not self._trust(entry):
            return
        self.entries = [each for each in self.entries if each.bundle != entry.bundle]
        self.entries.append(entry)
        self._fill()
        self.show(entry.name, str(entry.bundle))
        self.onChange()

    def _trust(self, entry: TaskEntry) -> bool:
        question = _(
            "The bundle {folder} did not come with this module. Only its weights and its task are "
            "read; none of its code is run. Its makers alone answer for its results. Use it?"
        ).format(folder=entry.bundle)
        if not slicer.util.confirmOkCancelDisplay(question, _("Use this bundle?")):
            return False
        self._trusted.add(entry.bundle)
        return True

    def _changed(self) -> None:
        self._note()
        self.onChange()

    @property
    def _rejection(self) -> str:
        """Why the chosen task is not made for the image, if it is known not to be."""
        index = self.ui.taskComboBox.currentIndex
        return self._rejections[index] if 0 <= index < len(self._rejections) else ""

    def _note(self) -> None:
        entry = self.current
        notes = [_sentence(self._rejection), self._unchecked]
        if self._rejection and self.ui.forceCheckBox.checked:
            notes.append(_("It will run all the same; a DICOM SEG of the result says so."))
        if entry is not None:
            notes.append(_sentence(entry.notice))
        if entry is not None and entry.bundle is not None:
            notes.append(_("From {folder}.").format(folder=entry.bundle))
        text = " ".join(note for note in notes if note)
        self.ui.taskNoteLabel.text = text
        self.ui.taskNoteLabel.visible = bool(text)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""
