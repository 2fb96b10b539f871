"""Asks which frames of a video are loaded, and shows the room that they take."""

from __future__ import annotations

import shutil

import qt
import slicer

from .ClipChoice import (
    LARGE_BYTES,
    SCALES,
    ClipChoice,
    Video,
    everyFrame,
    inWords,
    preselected,
)
from .Texts import _


class ClipDialog:
    """The window with the choice.

    Args:
        video: the file.
        folder: where the frames will be kept.
        parent: the window that it belongs to.
    """

    def __init__(self, video: Video, *, folder: str, parent: qt.QWidget | None = None) -> None:
        self.video = video
        self._free = shutil.disk_usage(folder).free
        self.dialog = qt.QDialog(parent)
        self.dialog.windowTitle = _("Load video")
        every = everyFrame(video)
        self.question = qt.QLabel()
        self.question.wordWrap = True
        self.question.text = _(
            "All {count} frames of this video ({columns} x {rows} pixels) take {size}. Choose what "
            "is loaded; runs on the clip read the video itself, at its full size."
        ).format(
            count=video.frames,
            columns=video.columns,
            rows=video.rows,
            size=inWords(every.bytes(video)),
        )
        self.first, self.last, self.step = (self._box(1, video.frames) for _each in range(3))
        self.firstTime, self.lastTime = qt.QLabel(), qt.QLabel()
        self.scale = qt.QComboBox()
        for scale in SCALES:
            rows, columns = ClipChoice(0, 0, scale=scale).size(video)
            name = _("Full") if scale == 1 else f"1/{scale}"
            self.scale.addItem(f"{name} ({columns} x {rows})")
        self.room = qt.QLabel()
        self.room.wordWrap = True
        self.buttons = qt.QDialogButtonBox(
            qt.QDialogButtonBox.Ok | qt.QDialogButtonBox.Cancel, self.dialog
        )
        self._arrange()
        self._show(preselected(video))
        for box in (self.first, self.last, self.step):
            box.valueChanged.connect(self.refresh)
        self.scale.currentIndexChanged.connect(self.refresh)
        self.buttons.accepted.connect(self.dialog.accept)
        self.buttons.rejected.connect(self.dialog.reject)
        self.refresh()

    @property
    def choice(self) -> ClipChoice:
        """What is chosen."""
        scale = SCALES[max(0, self.scale.currentIndex)]
        return ClipChoice(self.first.value - 1, self.last.value - 1, self.step.value, scale)

    def refresh(self, *_ignored: object) -> None:
        """Show what the choice takes, and whether it can be loaded."""
        choice, video = self.choice, self.video
        count, size = len(choice.frames), choice.bytes(video)
        rows, columns = choice.size(video)
        self.firstTime.text, self.lastTime.text = video.time(choice.first), video.time(choice.last)
        text = _("{count} frames of {columns} x {rows} pixels: {size} on the disk, of {free} free.")
        text = text.format(
            count=count, columns=columns, rows=rows, size=inWords(size), free=inWords(self._free)
        )
        fits = count > 0 and size < self._free
        if not count:
            text = _("The last frame is before the first one.")
        elif fits:
            text += " " + _("Up to as much memory is used while they are browsed, if it is free.")
        else:
            text += " " + _("<b>Too much: load fewer or smaller frames.</b>")
        self.room.text = text
        self.buttons.button(qt.QDialogButtonBox.Ok).enabled = fits

    def ask(self) -> ClipChoice | None:
        """Show the window and return what was chosen; None if it was cancelled."""
        return self.choice if self.dialog.exec_() == qt.QDialog.Accepted else None

    def _box(self, lowest: int, highest: int) -> qt.QSpinBox:
        box = qt.QSpinBox()
        box.minimum, box.maximum = lowest, max(lowest, highest)
        return box

    def _show(self, choice: ClipChoice) -> None:
        self.first.value, self.last.value = choice.first + 1, choice.last + 1
        self.step.value = choice.step
        self.scale.currentIndex = SCALES.index(choice.scale)

    def _arrange(self) -> None:
        form = qt.QFormLayout(self.dialog)
        form.addRow(self.question)
        for name, box, time in (
            (_("First frame:"), self.first, self.firstTime),
            (_("Last frame:"), self.last, self.lastTime),
        ):
            row = qt.QHBoxLayout()
            row.addWidget(box)
            row.addWidget(time)
            form.addRow(name, row)
        form.addRow(_("Every Nth frame:"), self.step)
        form.addRow(_("Size:"), self.scale)
        form.addRow(self.room)
        form.addRow(self.buttons)


def clipChoice(video: Video, *, folder: str) -> ClipChoice | None:
    """Return which frames of a video are loaded; None if the user cancelled.

    All of them where they take little. Without a main window, as in tests, what the window would
    have offered first.

    Args:
        video: the file.
        folder: where the frames will be kept.
    """
    every = everyFrame(video)
    if every.bytes(video) <= LARGE_BYTES:
        return every
    window = None if slicer.app.testingEnabled() else slicer.util.mainWindow()
    if window is None:
        return preselected(video)
    return ClipDialog(video, folder=folder, parent=window).ask()
