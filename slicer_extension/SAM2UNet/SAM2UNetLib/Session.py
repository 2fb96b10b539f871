"""What is said between this module and the worker: questions, a run, its threshold, an export.

    start -> the worker is started and asked -> pictures come back -> the scene is changed

Nothing waits: whoever owns a session polls it. Everything of MRML is done in `start` and `poll`, on
the caller's thread; pixels are written to the exchange folder in another one.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import Inputs, Terminology, protocol
from .Collaborators import Event, Report, ResultWriter, Source, WorkerControl
from .Errors import ModuleError
from .Export import exported
from .Handover import Handover
from .InputInfo import readingWarnings
from .Request import Request
from .SegmentationLogic import SegmentationLogic
from .Tasks import Offer
from .Texts import _

PARTIAL_S = 0.5
"""Pictures are shown as they come, but not more often than this."""
WRITE_S = 0.05
"""How long a large result is written into the scene at once."""
HELLO = "hello"
"""The question what the environment offers; other questions are those of `askRejection`."""


class Session:
    """One user's work with the worker: a run at a time, then live changes of its threshold.

    Args:
        worker: started when it is first needed.
        logic: changes the scene.
        clock: seconds.
    """

    def __init__(
        self,
        worker: WorkerControl,
        *,
        logic: ResultWriter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.worker = worker
        self.logic = logic or SegmentationLogic()
        self.task: dict[str, Any] | None = None
        self.notice: str | None = None
        self._clock = clock
        self._handover = Handover(worker)
        self._reports: list[Report] = []
        self._questions: dict[int, str] = {}
        self._ids: dict[int, str] = {}
        self._cancelled = False
        self._request: Request | None = None
        self._extraction: Inputs.Extraction | None = None
        self._unchecked = ""
        self._handle: str | None = None
        self._started = self._shown = 0.0
        self._next: dict[str, Any] | None = None
        self._export: Path | None = None
        self._writing: Iterator[None] | None = None
        self._recorded: dict[str, str] = {}

    @property
    def isBusy(self) -> bool:
        """Whether a run, a change of the threshold or an export is not finished."""
        return bool(self._ids) or self._handover.isOpen or self._writing is not None

    @property
    def isAsking(self) -> bool:
        """Whether a question is not answered."""
        return bool(self._questions)

    @property
    def canRethreshold(self) -> bool:
        """Whether the last run's probabilities are kept."""
        return self._handle is not None and self.worker.isAlive

    @property
    def canUndo(self) -> bool:
        """Whether the last run can be undone."""
        return self.logic.canUndo

    @property
    def isEdited(self) -> bool:
        """Whether a person changed the last result since it was written."""
        return self.logic.isEdited

    @property
    def log(self) -> str:
        """The last lines of the worker's log."""
        return self.worker.log

    def askForTasks(self) -> None:
        """Ask what the environment offers; reported as ("offer", Offer), or as a failure.

        Raises:
            OSError: the worker cannot be started.
        """
        self._question(HELLO, "hello")

    def askRejection(self, question: str, source: Source, task: dict[str, Any]) -> None:
        """Ask why a task is not made for a source; reported as ("rejection", question, message).

        The message is empty where the task is made for it. Nothing is reported where there is no
        answer: the run asks again.

        Args:
            question: any text that tells this question from others.
            source: what the DICOM source states.
            task: the content of its `task.json`.

        Raises:
            OSError: the worker cannot be started.
            ProtocolError: the task is too large for a request.
        """
        self._question(question, "fits", source=source, tasks=[task])

    def start(self, request: Request) -> None:
        """Begin a run; `poll` reports its progress and result, errors too."""
        if self.isBusy:
            self._fail(_("Another run is still in progress."), _("Wait for it, or cancel it."))
            return
        self._cancelled, self._handle, self._next = False, None, None
        self._request, self.task, self.notice = request, None, None
        try:
            self._extraction = _extraction(request)
            self._startWorker()
        except ModuleError as error:
            self._fail(error.message, error.remedy)
            return
        except OSError as error:
            remedy = _("Build or repair the environment, then try again.")
            if error.errno == errno.ENOSPC:
                remedy = _("Free some disk space and try again.")
            reason = error.strerror or error
            self._fail(_("The worker cannot be started: {reason}").format(reason=reason), remedy)
            return
        self._started = self._clock()
        self._tell("status", _("Loading the network..."))
        self._ask("load", **request.load())
        if request.putFile is not None:
            self._handover.beginFile(request.putFile)
        else:
            self._handover.begin(self._extraction.array)

    def rethreshold(self, **refinement: Any) -> bool:
        """Compute the last run's masks again, without the network; return whether that is possible.

        While one change is being made, only the latest of those that follow is kept.

        Args:
            refinement: `threshold`, `minimumSize`, `keepLargest` and `smoothingPx` of `Request`.
        """
        if not self.canRethreshold:
            return False
        fields = replace(self._request, **refinement).adjustment(self._extraction.pixelArea)
        self.logic.leave()  # what was painted before is replaced at the caller's wish
        if self.isBusy:
            self._next = fields
        else:
            self._rethreshold(fields)
        return True

    def undo(self) -> None:
        """Undo the last run."""
        if self._writing is not None:  # what is still to be written is not wanted
            self._writing.close()
        self._writing = None
        self.logic.undo()
        self._handle = self._next = None

    def exportDicomSeg(
        self,
        segmentationNode: Any,
        *,
        source: Path | str,
        output: Path | str,
        series: int = 0,
    ) -> None:
        """Write a segmentation as DICOM SEG, as it is now, edits included; reported as "exported".

        Blocks while the masks are gathered: long for a volume, not for a clip's frame.

        Args:
            segmentationNode: see `Export.exported`.
            source: file or folder of the study's series, below an allowed root.
            output: the file to write.
            series: which of the series at `source`.
        """
        if self.isBusy:
            self._fail(_("Another run is still in progress."), _("Wait for it, or cancel it."))
            return
        try:
            content = exported(segmentationNode)
            self._startWorker()
            reference = self._handover.write(content.masks)
        except (ModuleError, protocol.ProtocolError, OSError) as error:
            self._failWith(error)
            return
        self._cancelled, self._export = False, Path(output)
        self._tell("status", _("Writing DICOM SEG..."))
        self._ask(
            "write_seg",
            source=str(source),
            series=series,
            masks=reference,
            output=f"{reference['file'].partition('.')[0]}.dcm",
            **content.fields(),
        )

    def poll(self) -> list[Report]:
        """Do what can be done without waiting, and return what happened since the last call."""
        for event in self.worker.poll():
            if event.get("id") in self._questions:
                self._answer(event)
            elif event.get("id") in self._ids:
                self._take(event)
        if self._handover.isOpen and not self._handover.isWriting and not self._ids:
            self._handover.end()
            self._handedOver()
        if self._writing is not None:
            self._write()
        reports, self._reports = self._reports, []
        return reports

    def cancel(self) -> None:
        """End the run; what it wrote into the scene is undone when it has ended."""
        if not self.isBusy:
            return
        self._cancelled = True
        self._tell("status", _("Cancelling..."))
        for identifier, kind in list(self._ids.items()):
            if kind != "cancel":
                self._ids[self.worker.cancel(identifier)] = "cancel"

    def close(self) -> None:
        """End the worker."""
        self.worker.stop()
        self._handover.end(timeout=5)
        self._ids, self._questions, self._handle, self._writing = {}, {}, None, None

    def _startWorker(self) -> None:
        if not self.worker.isAlive:
            self._questions = {}  # another worker does not answer them
        self.worker.start()

    def _question(self, question: str, operation: str, **fields: Any) -> None:
        self._startWorker()
        self._questions[self.worker.request(operation, **fields)] = question

    def _answer(self, event: Event) -> None:
        if event["event"] not in protocol.TERMINAL:
            return
        question = self._questions.pop(event["id"])
        if event["event"] == "finished" and question == HELLO:
            self._tell("offer", Offer.of(event["result"]))
        elif event["event"] == "finished":
            (rejection,) = event["result"]["rejections"]
            self._tell("rejection", question, rejection["message"] if rejection else "")
        elif question == HELLO:
            last = self.worker.log.splitlines()[-1:] or [str(event.get("message", ""))]
            self._fail(
                _("The environment does not answer: {reason}").format(reason=last[0]),
                _("Press Check or Repair on the Setup tab."),
            )

    def _take(self, event: Event) -> None:
        """Do what an event of a run, a change of its threshold or an export asks for."""
        kind, ended = self._ids[event["id"]], event["event"] in protocol.TERMINAL
        if ended:
            del self._ids[event["id"]]
        try:
            self._handleEvent(kind, event)
        except (ModuleError, protocol.ProtocolError, OSError) as error:
            if ended:
                self._takeBack(kind)
            self._failWith(error)

    def _handedOver(self) -> None:
        """Ask for the segmentation: the network is loaded and the pixels are written."""
        if self._cancelled:
            self._tell("cancelled")
        elif self._handover.trouble is not None:
            self._fail(
                _("The images cannot be passed to the worker: {reason}").format(
                    reason=self._handover.trouble
                ),
                _("Free some disk space, or segment fewer frames."),
            )
        elif self.task is not None:
            self._segment(self._request, self._extraction)
        if not self._ids:  # it came to nothing
            self._handover.remove()

    def _segment(self, request: Request, extraction: Inputs.Extraction) -> None:
        try:
            info = Inputs.describe(request.inputNode)
            self.logic.begin(extraction, self.task, segmentationNode=request.segmentationNode)
        except ModuleError as error:
            self._fail(error.message, error.remedy)
            return
        self._extraction, self._unchecked = extraction.withoutPixels(), info.unchecked(self.task)
        self._started = self._clock()
        self._tell("status", _("Segmenting..."))
        self._ask(
            "segment",
            input=self._given(extraction, info),
            force_task=request.force,
            probabilities=False,
            sparse=request.putFile is not None,
            **request.adjustment(extraction.pixelArea),
        )

    def _given(self, extraction: Inputs.Extraction, info: Inputs.InputInfo) -> dict[str, Any]:
        """Return the pictures of a run as `segment` takes them."""
        if self._handover.path is not None:
            self._unchecked = ""  # the worker reads what the file states
            frames = [extraction.clip.frame(part.item) for part in extraction.parts]
            return {"path": str(self._handover.path), "series": 0, "frames": frames}
        return {
            "array": self._handover.reference,
            "channels": extraction.channels,
            "window": None if self.task.get("window") else extraction.window,
            "source": info.sourceFor(self.task),
        }

    def _handleEvent(self, kind: str, event: Event) -> None:
        name = event["event"]
        if name == "failed" and kind != "cancel":
            self._takeBack(kind)
            self._fail(event["message"], event.get("remedy", ""))
        elif name == "cancelled":
            self._takeBack(kind)
            self._tell("cancelled")
        elif kind == "segment" and name == "progress":
            self._tell("progress", event["done"], event["total"], self._left(event))
        elif kind == "segment" and name == "partial":
            self._showPartial(event)
        elif name == "finished":
            self._finish(kind, event["result"])

    def _finish(self, kind: str, result: dict[str, Any]) -> None:
        if kind == "load":
            self.task, self.notice = result["task"], result.get("notice")
        elif kind == "write_seg":
            self._keepExport(result)
        elif kind in ("segment", "rethreshold"):
            self._complete(kind, result)

    def _complete(self, kind: str, result: dict[str, Any]) -> None:
        if kind == "segment":
            self._handover.remove()
            self._handle = result.get("result")
            if self._cancelled:  # the end was faster
                self._takeBack(kind)
                self._tell("cancelled")
                return
        elif self._handle is None:  # taken back meanwhile
            return
        if self._next is not None and self._handle is not None:
            fields, self._next = self._next, None
            self._rethreshold(fields)
            return
        tags = self._record(result) if kind == "segment" else self._recorded
        if kind == "rethreshold":
            tags = {**tags, Terminology.THRESHOLD_TAG: f"{result['threshold']:g}"}
        if result.get("mask_frames") is not None:
            self._tell("status", _("Writing the result..."))
            self._writing = self._writeFound(kind, result, tags)
            return
        masks = self._handover.take(result["masks"])
        self._told(
            kind, result, self.logic.complete(masks, surface=self._request.surface, tags=tags)
        )

    def _told(self, kind: str, result: dict[str, Any], node: Any) -> None:
        if kind == "segment":
            known = readingWarnings(self._request.inputNode)
            self._tellWarnings(result, [*known, self._unchecked] if self._unchecked else known)
        self._tell("finished", node)

    def _writeFound(
        self, kind: str, result: dict[str, Any], tags: dict[str, str]
    ) -> Iterator[None]:
        """Write a sparse result into the scene, frame by frame."""
        found = self._handover.found(result, columns=self._extraction.array.shape[2])
        with contextlib.closing(found):
            for written in self.logic.completeFound(found, tags=tags):
                node = written
                if self._cancelled and kind == "segment":
                    self._takeBack(kind)
                    self._tell("cancelled")
                    return
                yield
        self._told(kind, result, node)

    def _write(self) -> None:
        """Go on writing for a moment; Slicer has to stay usable."""
        limit = self._clock() + WRITE_S
        try:
            next(self._writing)
            while self._clock() < limit:
                next(self._writing)
        except StopIteration:
            self._writing = None
            if self._next is not None and self._handle is not None:
                self._rethreshold(self._next)
        except (ModuleError, protocol.ProtocolError, OSError) as error:
            self._writing = None
            self._takeBack("segment")
            self._failWith(error)

    def _rethreshold(self, fields: dict[str, Any]) -> None:
        self._next = None
        sparse = self._request.putFile is not None
        self._ask("rethreshold", result=self._handle, sparse=sparse, **fields)

    def _record(self, result: dict[str, Any]) -> dict[str, str]:
        """Return, as tags of the segments, how a run made them: a DICOM SEG says so later."""
        notes = [str(result.get("notice") or "")]
        if self._request.forced:
            notes.append("task forced on a source it does not accept")
        self._recorded = {
            Terminology.WEIGHTS_TAG: str(result.get("weights_sha256") or ""),
            Terminology.THRESHOLD_TAG: f"{result['threshold']:g}",
            Terminology.NOTE_TAG: "; ".join(note for note in notes if note),
        }
        return self._recorded

    def _showPartial(self, event: Event) -> None:
        """Show a picture, unless the last one was shown just now: the end shows all."""
        now = self._clock()
        if self._cancelled or now - self._shown < PARTIAL_S or self._extraction.count == 1:
            return
        masks = protocol.read_array(self.worker.exchange, event["file"])
        self.logic.updatePartial(event["frame"], masks)
        self._shown = now
        self._tell("partial", event["frame"])

    def _left(self, event: Event) -> float | None:
        done, total = event["done"], event["total"]
        return (self._clock() - self._started) / done * (total - done) if done else None

    def _keepExport(self, result: dict[str, Any]) -> None:
        self._handover.remove()
        self._handover.keep(result["file"], self._export)
        self._tellWarnings(result)
        self._tell("exported", str(self._export))

    def _takeBack(self, kind: str) -> None:
        """Leave no half-made result behind."""
        if kind in ("segment", "write_seg"):
            self._handover.remove()
        if kind == "segment":
            self._handle = None
            if not self.logic.undo(painted=False):
                text = _("You painted during the run, so the segmentation was left as it is.")
                self._tell("warned", [text])

    def _ask(self, operation: str, **fields: Any) -> None:
        self._ids[self.worker.request(operation, **fields)] = operation

    def _tell(self, *report: Any) -> None:
        self._reports.append(report)

    def _tellWarnings(self, result: dict[str, Any], others: Sequence[str] = ()) -> None:
        """Report what the user should know of how the pictures were read.

        Args:
            result: of the worker.
            others: what was known before.
        """
        found = [str(each["message"]) for each in result.get("warnings") or ()]
        texts = list(dict.fromkeys([*others, *found]))
        if texts:
            self._tell("warned", texts)

    def _fail(self, message: str, remedy: str) -> None:
        self._next = None
        self._tell("failed", message, remedy)

    def _failWith(self, error: ModuleError | protocol.ProtocolError | OSError) -> None:
        if isinstance(error, OSError):
            self._fail(str(error.strerror or error), _("Free some disk space and try again."))
        else:
            self._fail(error.message, error.remedy)


def _extraction(request: Request) -> Inputs.Extraction:
    """Return the pictures of a request; without a pixel where the worker reads them itself."""
    chosen = {"sliceNode": request.sliceNode, "between": request.between}
    if request.putFile is None:
        return Inputs.extract(request.inputNode, request.what, **chosen)
    found = Inputs.places(request.inputNode, request.what, **chosen)
    return found.ofFile(found.clip)
