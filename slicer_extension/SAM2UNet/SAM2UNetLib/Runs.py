"""What the panel asks for, and scripts may: runs, their refinement, their export.

A run is begun by `start` and goes on while `poll` is called; nothing here waits. No Qt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

from . import Inputs
from .DicomSource import DicomSource
from .Errors import ResultError
from .Session import Request, Session
from .TaskCatalog import TaskCatalog
from .WorkerProcess import WorkerProcess


class Runs:
    """The work of the module; the worker of one environment stays warm between runs."""

    def __init__(self) -> None:
        self.catalog = TaskCatalog()
        self.session: Session | None = None
        self.source: DicomSource | None = None
        self._command: list[str] = []
        self._folders: set[Path] = set()
        self._refining = False
        self._asked: dict[str, Any] = {}
        self._done: dict[str, Any] = {}

    @property
    def busy(self) -> bool:
        """Whether there is something to poll for."""
        return self.catalog.busy or (self.session is not None and self.session.isBusy)

    @property
    def canUndo(self) -> bool:
        """Whether the last run can be taken back."""
        return self.session is not None and self.session.logic.canUndo

    @property
    def canRefine(self) -> bool:
        """Whether the last run's probabilities are kept."""
        return self.session is not None and self.session.canRethreshold

    @property
    def log(self) -> str:
        """The last lines that the worker wrote for people."""
        return self.session.worker.log if self.session is not None else ""

    def askForTasks(self, command: list[str]) -> None:
        """Ask an environment for its tasks; told by `poll` as ("tasks", entries).

        Raises:
            OSError: it cannot be started.
        """
        self.catalog.ask(command, variables=slicer.util.startupEnvironment())

    def start(
        self,
        command: list[str],
        *,
        entry: Any,
        parameter: Any,
        between: tuple[int, int] | None = None,
        weights: str | None = None,
        device: str = "auto",
    ) -> None:
        """Begin a run; what comes of it is told by `poll`.

        Args:
            command: words that start `sam2unet`.
            entry: the task, a `TaskEntry`.
            parameter: the choices, a `Parameter`.
            between: first and last slice or frame of a range, from 0.
            weights: weights file; None for the task's own.
            device: "auto", "cpu", "cuda" or "mps".
        """
        request = Request(
            parameter.inputNode,
            parameter.what,
            task=entry.name if entry.bundle is None else None,
            bundle=str(entry.bundle) if entry.bundle is not None else None,
            sliceNode=parameter.sliceView,
            between=between,
            weights=weights,
            device=device,
            segmentationNode=parameter.outputSegmentation,
            force=parameter.force,
            **self._refinement(parameter),
        )
        self._refining = False
        folders = [entry.bundle] if entry.bundle is not None else []
        folders += [Path(weights).parent] if weights else []
        session = self._sessionOf(command, folders)
        self._asked = {"image": parameter.inputNode, "load": request.load()}
        session.start(request)

    def rethreshold(self, parameter: Any) -> None:
        """Let the last result follow the choices, without the network."""
        if self.session is not None:
            self._refining = self.session.rethreshold(**self._refinement(parameter))

    def exportDicomSeg(self, segmentationNode: Any, folder: str) -> None:
        """Write the last run's result, as it is now, as a DICOM object into a folder.

        It is written for the image that it was made of, whatever was begun since.

        Raises:
            ResultError: it is another segmentation, or its run is not known any more.
            InputError: the image did not come from the DICOM database.
        """
        if not self._done or segmentationNode is not self._done["result"]:
            raise ResultError("this is not the result of the last run", "segment again, then save")
        image = self._done["image"]
        info = Inputs.describe(image)
        database = getattr(slicer, "dicomDatabase", None)
        path = self.source.gather(info.instanceUids, database)
        name = "".join(c if c.isalnum() else "_" for c in segmentationNode.GetName())
        self.session.exportDicomSeg(
            segmentationNode,
            image,
            task=self._done["task"],
            source=path,
            output=Path(folder) / f"{name}.dcm",
            load=self._done["load"],
        )

    def poll(self) -> list[tuple]:
        """Return what happened since the last call: the session's reports, "tasks", "refined"."""
        events = self.catalog.poll()
        for event in self.session.poll() if self.session is not None else ():
            if event[0] == "finished" and self._refining:
                self._refining = self.session.isBusy
                events.append(("refined", event[1]))
                continue
            if event[0] == "finished":
                self._done = {**self._asked, "result": event[1], "task": self.session.task}
            if event[0] in ("exported", "failed", "cancelled"):
                self.source.clear()  # a study's files stay no longer than its export takes
            if event[0] == "exported":
                addToDatabase(event[1])
            events.append(event)
        return events

    def cancel(self) -> None:
        """Stop the run; what it wrote into the scene is taken back."""
        if self.session is not None:
            self.session.cancel()

    def undo(self) -> None:
        """Bring back what was there before the last run."""
        if self.session is not None:
            self.session.undo()

    def forget(self) -> None:
        """The scene goes: end a run and hold nothing of it."""
        session, self.session = self.session, None
        self._asked, self._done = {}, {}
        if session is not None:
            session.close()

    def close(self) -> None:
        """End all that runs."""
        self.forget()
        self.catalog.forget()
        if self.source is not None:
            self.source.close()
        self.source = None

    def _sessionOf(self, command: list[str], folders: list[Path]) -> Session:
        """Return the session of an environment; it keeps its worker warm between runs.

        Args:
            command: words that start `sam2unet`.
            folders: which the worker must be allowed to read, beside the series it is given.
        """
        if self.session is not None and self._command == command and self._folders >= set(folders):
            return self.session
        self.forget()
        self.source = self.source or DicomSource()
        self._folders = {self.source.root, *folders}
        worker = WorkerProcess(
            [*command, "worker"],
            allowRoots=sorted(self._folders),
            environment=slicer.util.startupEnvironment(),
        )
        self.session, self._command = Session(worker), list(command)
        return self.session

    def _refinement(self, parameter: Any) -> dict[str, Any]:
        return {
            "threshold": parameter.threshold,
            "minAreaPx": parameter.minimumSize or None,
            "keepLargest": parameter.keepLargest,
            "smoothingPx": parameter.smoothing,
        }


def addToDatabase(file: str) -> None:
    """Add a DICOM file to Slicer's database, if one is open; a copy of the file goes there.

    The application's own database is asked, not an indexer: that one waits in an event loop of its
    own, and only the former tells its views what was added.
    """
    database = getattr(slicer, "dicomDatabase", None)
    if database is None or not database.isOpen:
        return
    database.prepareInsert()  # the patient or study may have been deleted since the last insertion
    store, thumbnail = True, False  # a segmentation has no picture to make a thumbnail of
    database.insert(file, store, thumbnail)
    database.updateDisplayedFields()
