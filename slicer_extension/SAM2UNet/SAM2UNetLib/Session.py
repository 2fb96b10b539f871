"""What is said between this module and the worker: questions, a run, its threshold, an export.

    start -> the worker is started and asked -> pictures come back -> the scene is changed

Nothing waits: whoever owns a session polls it. Everything of MRML is done in `start` and `poll`, on
the caller's thread; pixels are written to the exchange folder in another one.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
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
        self._recorded: dict[str, str] = {}

    @property
    def isBusy(self) -> bool:
        """Whether a run, a change of the threshold or an export is not finished."""
        return bool(self._ids) or self._handover.isOpen

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
            self._extraction = Inputs.extract(
                request.inputNode,
                request.what,
                sliceNode=request.sliceNode,
                between=request.between,
            )
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
        if self.isBusy:
            self._next = fields
        else:
            self._ask("rethreshold", result=self._handle, **fields)
        return True

    def undo(self) -> None:
        """Undo the last run."""
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
        self._ids, self._questions, self._handle = {}, {}, None

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
        window = None if self.task.get("window") else extraction.window
        given = {
            "array": self._handover.reference,
            "channels": extraction.channels,
            "window": window,
            "source": info.sourceFor(self.task),
        }
        self._tell("status", _("Segmenting..."))
        self._ask(
            "segment",
            input=given,
            force_task=request.force,
            probabilities=False,
            **request.adjustment(extraction.pixelArea),
        )

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
        masks = self._handover.take(result["masks"])
        if kind == "segment":
            self._handover.remove()
            self._handle = result.get("result")
            if self._cancelled:  # the end was faster
                self._takeBack(kind)
                self._tell("cancelled")
                return
        if self._handle is None:  # taken back meanwhile
            return
        if self._next is not None:
            fields, self._next = self._next, None
            self._ask("rethreshold", result=self._handle, **fields)
            return
        tags = self._record(result) if kind == "segment" else self._recorded
        if kind == "rethreshold":
            tags = {**tags, Terminology.THRESHOLD_TAG: f"{result['threshold']:g}"}
        node = self.logic.complete(masks, surface=self._request.surface, tags=tags)
        if kind == "segment":
            known = readingWarnings(self._request.inputNode)
            self._tellWarnings(result, [*known, self._unchecked] if self._unchecked else known)
        self._tell("finished", node)

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
            self.logic.undo()
            self._handle = None

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
