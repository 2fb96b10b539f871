"""What the panel asks for, and scripts may: tasks, runs, their refinement, their export.

A run is begun by `start` and goes on while `poll` is called; nothing here waits. No Qt.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import slicer

from . import Inputs, protocol
from .Clips import Clip
from .Collaborators import Choices, Report, RunSession, Source, StudyFiles
from .DicomSource import DicomSource
from .Errors import InputError
from .Export import imageOf
from .Request import Request
from .Session import Session
from .Tasks import Offer, TaskEntry
from .WorkerProcess import WorkerProcess

LAST = ("finished", "exported", "failed", "cancelled")
"""What a run or an export ends with."""


def startSession(command: list[str], folders: Sequence[Path]) -> Session:
    """Return a session with a worker of an environment; the worker starts when it is needed.

    Args:
        command: command that starts `sam2unet`.
        folders: what the worker may read.
    """
    worker = WorkerProcess(
        [*command, "worker"],
        allowRoots=sorted(folders),
        environment=slicer.util.startupEnvironment(),
    )
    return Session(worker)


class Runs:
    """The work of the module; the worker of one environment stays warm between runs.

    Args:
        makeSession: returns a session for a command and the folders that its worker may read.
        makeFiles: returns the folder for the DICOM files of a study.
    """

    def __init__(
        self,
        makeSession: Callable[[list[str], Sequence[Path]], RunSession] = startSession,
        *,
        makeFiles: Callable[[], StudyFiles] = DicomSource,
    ) -> None:
        self.session: RunSession | None = None
        self.files: StudyFiles | None = None
        self._makeSession = makeSession
        self._makeFiles = makeFiles
        self._command: list[str] = []
        self._folders: set[Path] = set()
        self._offer: Offer | None = None
        self._rejections: dict[str, str] = {}
        self._questions: set[str] = set()
        self._refining = False

    @property
    def busy(self) -> bool:
        """Whether there is something to poll for."""
        return self.session is not None and (self.session.isBusy or self.session.isAsking)

    @property
    def canUndo(self) -> bool:
        """Whether the last run can be undone."""
        return self.session is not None and self.session.canUndo

    @property
    def canRefine(self) -> bool:
        """Whether the last run's probabilities are kept."""
        return self.session is not None and self.session.canRethreshold

    @property
    def isEdited(self) -> bool:
        """Whether a person changed the last run's result since it was written."""
        return self.session is not None and self.session.isEdited

    @property
    def log(self) -> str:
        """The last lines of the worker's log."""
        return self.session.log if self.session is not None else ""

    def askForTasks(self, command: list[str]) -> None:
        """Ask an environment what it offers, once; reported by `poll` as ("offer", Offer).

        Raises:
            OSError: it cannot be started.
        """
        session = self._sessionOf(command, [])
        if self._offer is None and not session.isAsking:
            session.askForTasks()

    def rejection(self, source: Source | None, task: dict[str, Any]) -> str:
        """Return why a task is not made for a source, in the worker's words.

        The worker is asked once; `poll` reports ("rejections",) when it has answered.

        Args:
            source: what the DICOM source states; None for other images, which suit every task.
            task: the content of its `task.json`.

        Returns:
            Empty where the task is made for it, and while there is no answer.
        """
        if source is None or not self._command:
            return ""
        question = _question(source, task)
        if question not in self._rejections and question not in self._questions:
            self._questions.add(question)
            with contextlib.suppress(OSError, protocol.ProtocolError):  # then the run tells why
                session = self._sessionOf(self._command, [])
                session.askRejection(question, source, task)
        return self._rejections.get(question, "")

    def start(
        self,
        command: list[str],
        *,
        entry: TaskEntry,
        parameter: Choices,
        between: tuple[int, int] | None = None,
        weights: str | None = None,
        device: str = "auto",
    ) -> None:
        """Begin a run; `poll` reports its progress and result.

        Args:
            command: command that starts `sam2unet`.
            entry: the task.
            parameter: the other choices.
            between: first and last slice or frame of a range, from 0.
            weights: weights file; None for the task's own.
            device: "auto", "cpu", "cuda" or "mps".
        """
        image = Inputs.sourceOf(parameter.inputNode)
        request = Request(
            image,
            str(parameter.what),
            task=entry.name if entry.bundle is None else None,
            bundle=str(entry.bundle) if entry.bundle is not None else None,
            sliceNode=parameter.sliceView,
            between=between,
            weights=weights,
            device=device,
            segmentationNode=parameter.outputSegmentation,
            force=parameter.force,
            forced=parameter.force and self._isForced(image, entry.task),
            **self._refinement(parameter),
        )
        self._refining = False
        folders = [entry.bundle] if entry.bundle is not None else []
        folders += [Path(weights).parent] if weights else []
        session = self._sessionOf(command, folders)
        session.start(replace(request, putFile=self._fileOf(image, request.what)))

    def rethreshold(self, parameter: Choices) -> None:
        """Update the last result to the choices, without the network."""
        if self.session is not None:
            self._refining = self.session.rethreshold(**self._refinement(parameter))

    def exportDicomSeg(self, command: list[str], segmentationNode: Any, folder: str) -> None:
        """Write a segmentation of the scene, as it is now, as a DICOM object into a folder.

        Args:
            command: command that starts `sam2unet`.
            segmentationNode: any whose image came from the DICOM database.
            folder: where the file goes.

        Raises:
            ResultError: the segmentation has no image or no segments.
            InputError: the image did not come from the DICOM database.
        """
        info = Inputs.describe(imageOf(segmentationNode))
        database = getattr(slicer, "dicomDatabase", None)
        session = self._sessionOf(command, [])
        path = self.files.gather(info.instanceUids, database)
        name = "".join(c if c.isalnum() else "_" for c in segmentationNode.GetName())
        session.exportDicomSeg(segmentationNode, source=path, output=_unused(Path(folder), name))

    def poll(self) -> list[Report]:
        """Return what happened since the last call."""
        reports: list[Report] = []
        answered = False
        for report in self.session.poll() if self.session is not None else ():
            kind = report[0]
            if kind == "rejection":
                self._rejections[report[1]] = report[2]
                answered = True
                continue
            if kind == "finished" and self._refining:
                self._refining = self.session.isBusy
                reports.append(("refined", report[1]))
                continue
            if kind == "offer":
                self._offer = report[1]
            elif kind in LAST and self.files is not None:
                self.files.clear()  # a study's files stay no longer than its run or export takes
            if kind == "exported":
                addToDatabase(report[1])
            reports.append(report)
        return [*reports, ("rejections",)] if answered else reports

    def cancel(self) -> None:
        """Stop the run; what it wrote into the scene is undone."""
        if self.session is not None:
            self.session.cancel()

    def undo(self) -> None:
        """Bring back what was there before the last run."""
        if self.session is not None:
            self.session.undo()

    def forget(self) -> None:
        """The scene is closing: end a run and keep nothing of the scene."""
        session, self.session = self.session, None
        self._questions = set()
        if session is not None:
            session.close()
        if self.files is not None:  # a study's files stay no longer than they are needed
            self.files.clear()

    def close(self) -> None:
        """End everything that runs."""
        self.forget()
        self._command, self._offer, self._rejections = [], None, {}
        if self.files is not None:
            self.files.close()
        self.files = None

    def _sessionOf(self, command: list[str], folders: Sequence[Path]) -> RunSession:
        """Return the session of an environment; it keeps its worker warm between runs.

        Args:
            command: command that starts `sam2unet`.
            folders: which the worker must be allowed to read, beside the series it is given.
        """
        same = self._command == command
        if self.session is not None and same and self._folders >= set(folders):
            return self.session
        self.forget()
        if not same:
            self._offer, self._rejections = None, {}
        self.files = self.files or self._makeFiles()
        self._folders = {self.files.root, *folders}
        self._command = list(command)
        self.session = self._makeSession(self._command, sorted(self._folders))
        return self.session

    def _fileOf(self, image: Any, what: str) -> Callable[[], Path] | None:
        """Return what puts the video file of a clip where the worker reads it.

        None where the frames are passed to the worker: for a single frame, for images that are not
        of one video file, and where that file is gone.
        """
        if what == "slice" or image is None or not image.IsA("vtkMRMLSequenceBrowserNode"):
            return None
        try:
            if Clip.of(Inputs.volumeSequence(image)) is None:
                return None
            uids = Inputs.describe(image).instanceUids
            files = self.files.locate(uids, getattr(slicer, "dicomDatabase", None))
        except InputError:
            return None
        return partial(self.files.put, files)

    def _isForced(self, image: Any, task: dict[str, Any]) -> bool:
        """Return whether a task is not made for an image, as far as the worker has said."""
        try:
            source = Inputs.describe(image).sourceFor(task)
        except InputError:  # the run tells why
            return False
        return source is not None and self._rejections.get(_question(source, task)) != ""

    def _refinement(self, parameter: Choices) -> dict[str, Any]:
        return {
            "threshold": parameter.threshold,
            "minimumSize": parameter.minimumSize,
            "keepLargest": parameter.keepLargest,
            "smoothingPx": parameter.smoothing,
        }


def _question(source: Source, task: dict[str, Any]) -> str:
    return json.dumps([source, task], sort_keys=True)


def _unused(folder: Path, name: str) -> Path:
    """Return a file that is not there yet: results of other days are never replaced."""
    numbers = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
    return next(
        path for path in (folder / f"{name}{number}.dcm" for number in numbers) if not path.exists()
    )


def addToDatabase(file: str, *, copy: bool = True) -> None:
    """Add a DICOM file to Slicer's database, if one is open; by default a copy goes there.

    The application's own database is asked, not an indexer: that one waits in an event loop of its
    own, and only the former tells its views what was added.
    """
    database = getattr(slicer, "dicomDatabase", None)
    if database is None or not database.isOpen:
        return
    database.prepareInsert()  # the patient or study may have been deleted since the last insertion
    thumbnail = False  # neither a segmentation nor a video has a picture to make one of
    database.insert(file, copy, thumbnail)
    database.updateDisplayedFields()
