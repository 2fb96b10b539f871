"""From a press of the button to a segmentation, without waiting: whoever owns a session polls it.

    start -> the worker is started and asked -> pictures come back -> the scene is changed

Everything of MRML is done in `start` and `poll`, on the caller's thread; pixels are written to the
exchange folder in another one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import Inputs, protocol
from .Errors import ModuleError
from .Request import Request
from .SegmentationLogic import SegmentationLogic
from .SequenceResult import storedMasks
from .Texts import _
from .WorkerProcess import Event, WorkerProcess

__all__ = ["Request", "Session"]
Report = tuple[Any, ...]
"""("status", text), ("progress", done, total, seconds left or None), ("partial", picture),
("finished", node), ("failed", message, remedy), ("cancelled",), ("exported", path)."""

PARTIAL_S = 0.5
"""Pictures are shown as they come, but not more often than this."""


class Session:
    """One user's work with the worker: a run at a time, then live changes of its threshold.

    Args:
        worker: started when it is first needed.
        logic: changes the scene.
        onOther: told of the worker's events that are not about a run, such as the answer to
            `hello`.
        clock: seconds.
    """

    def __init__(
        self,
        worker: WorkerProcess,
        *,
        logic: SegmentationLogic | None = None,
        onOther: Callable[[Event], Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.worker = worker
        self.logic = logic or SegmentationLogic()
        self.task: dict[str, Any] | None = None
        self.notice: str | None = None
        self._onOther = onOther
        self._clock = clock
        self._reports: list[Report] = []
        self._request: Request | None = None
        self._extraction: Inputs.Extraction | None = None
        self._written: dict[str, Any] | None = None
        self._thread: threading.Thread | None = None
        self._troubles: list[str] = []
        self._ids: dict[int, str] = {}
        self._handle: str | None = None
        self._started = self._shown = 0.0
        self._cancelled = False
        self._next: dict[str, Any] | None = None
        self._export: Path | None = None

    @property
    def isBusy(self) -> bool:
        """Whether a run, a change of the threshold or an export is not finished."""
        return bool(self._ids) or self._thread is not None

    @property
    def canRethreshold(self) -> bool:
        """Whether the last run's probabilities are kept."""
        return self._handle is not None and self.worker.isAlive

    def start(self, request: Request) -> None:
        """Begin a run; what comes of it is told by `poll`, errors too."""
        if self.isBusy:
            self._fail(_("A run is not finished."), _("Wait for it, or cancel it."))
            return
        self._cancelled, self._handle, self._next = False, None, None
        self._request, self._written, self._troubles = request, None, []
        self.task = self.notice = None
        try:
            self._extraction = Inputs.extract(
                request.inputNode,
                request.what,
                sliceNode=request.sliceNode,
                between=request.between,
            )
            self.worker.start()
        except ModuleError as error:
            self._fail(error.message, error.remedy)
            return
        except OSError as error:
            self._fail(
                _("The worker cannot be started: {reason}").format(reason=error.strerror or error),
                _("Build or repair the environment, then try again."),
            )
            return
        self._started = self._clock()
        self._reports.append(("status", _("Loading the network...")))
        self._ask("load", **request.load())
        self._thread = threading.Thread(target=self._writePixels, daemon=True)
        self._thread.start()

    def poll(self) -> list[Report]:
        """Do what can be done without waiting, and return what happened since the last call."""
        for event in self.worker.poll():
            kind = self._ids.get(event.get("id"))
            if kind is None:
                if self._onOther is not None:
                    self._onOther(event)
                continue
            if event["event"] in protocol.TERMINAL:
                del self._ids[event["id"]]
            try:
                self._handleEvent(kind, event)
            except (ModuleError, protocol.ProtocolError) as error:
                self._fail(error.message, error.remedy)
            except OSError as error:
                self._fail(str(error.strerror or error), _("Free some disk space and try again."))
        self._collectThread()
        reports, self._reports = self._reports, []
        return reports

    def cancel(self) -> None:
        """End the run; what it wrote into the scene is taken back when it has ended."""
        if not self.isBusy:
            return
        self._cancelled = True
        self._reports.append(("status", _("Cancelling...")))
        for identifier, kind in list(self._ids.items()):
            if kind != "cancel":
                self._ids[self.worker.cancel(identifier)] = "cancel"

    def rethreshold(
        self,
        threshold: float,
        *,
        minAreaPx: int | None = None,
        keepLargest: bool = False,
        smoothingPx: float = 0.0,
    ) -> bool:
        """Make the last run's masks anew, without the network; return whether that is possible.

        While one change is being made, only the latest of those that follow is kept.
        """
        if not self.canRethreshold:
            return False
        fields = {
            "threshold": threshold,
            "min_area_px": minAreaPx,
            "keep_largest": keepLargest,
            "smoothing_px": float(smoothingPx),
        }
        if self.isBusy:
            self._next = fields
        else:
            self._ask("rethreshold", result=self._handle, **fields)
        return True

    def undo(self) -> None:
        """Take the last run's result back."""
        self.logic.undo()
        self._handle = self._next = None

    def exportDicomSeg(
        self,
        segmentationNode: Any,
        inputNode: Any,
        *,
        task: dict[str, Any] | None,
        source: Path | str,
        output: Path | str,
        load: dict[str, Any] | None = None,
        series: int = 0,
    ) -> None:
        """Write a segmentation as DICOM SEG, as it is now, edits included; told by `exported`.

        Blocks while the masks are gathered: long for a volume, not for a clip's frame.

        Args:
            segmentationNode: made by this module.
            inputNode: the volume or sequence browser it was made of.
            task: the content of the task's `task.json`; None is told as a failure.
            source: file or folder of the study's series, below an allowed root.
            output: the file to write.
            load: as for `Request.load`; the task by its name by default.
            series: which of the series at `source`.
        """
        if self.isBusy:
            self._fail(_("A run is not finished."), _("Wait for it, or cancel it."))
            return
        if task is None:
            self._fail(_("The task is not known."), _("Segment first, then export."))
            return
        try:
            masks, frames = storedMasks(segmentationNode, inputNode, task)
            self.worker.start()
            reference = protocol.write_array(self.worker.exchange, masks)
        except (ModuleError, protocol.ProtocolError) as error:
            self._fail(error.message, error.remedy)
            return
        except OSError as error:
            self._fail(str(error.strerror or error), _("Free some disk space and try again."))
            return
        self._cancelled, self._export = False, Path(output)
        self._written = reference
        self._reports.append(("status", _("Writing DICOM SEG...")))
        self._ask(
            "write_seg",
            load=load or {"task": task["name"]},
            source=str(source),
            series=series,
            masks=reference,
            frames=frames,
            output=f"{reference['file'].partition('.')[0]}.dcm",
        )

    def close(self) -> None:
        """End the worker."""
        self.worker.stop()
        if self._thread is not None:
            self._thread.join(timeout=5)
        self._thread, self._ids, self._handle = None, {}, None

    def _ask(self, operation: str, **fields: Any) -> None:
        self._ids[self.worker.request(operation, **fields)] = operation

    def _writePixels(self) -> None:
        try:
            self._written = protocol.write_array(self.worker.exchange, self._extraction.array)
        except OSError as error:
            self._troubles.append(str(error.strerror or error))
        except protocol.ProtocolError as error:
            self._troubles.append(error.message)

    def _collectThread(self) -> None:
        """Ask for the segmentation once the network is loaded and the pixels are written."""
        if self._thread is None or self._thread.is_alive() or self._ids:
            return
        self._thread = None
        if self._troubles:
            self._fail(
                _("The pictures cannot be handed to the worker: {reason}").format(
                    reason=self._troubles[0]
                ),
                _("Free some disk space, or segment fewer frames."),
            )
        elif self._cancelled:
            self._reports.append(("cancelled",))
        elif self.task is not None:
            self._segment(self._request, self._extraction)
        if not self._ids:  # it came to nothing
            self._remove(self._written)

    def _segment(self, request: Request, extraction: Inputs.Extraction) -> None:
        fitting, reason = Inputs.fits(Inputs.describe(request.inputNode), self.task)
        if not fitting and not request.force:
            self._fail(
                _("{task} is not for this image: {reason}").format(
                    task=self.task["title"], reason=reason
                ),
                _("Choose another task, or force it."),
            )
            return
        try:
            self.logic.begin(extraction, self.task, segmentationNode=request.segmentationNode)
        except ModuleError as error:
            self._fail(error.message, error.remedy)
            return
        self._extraction = extraction.withoutPixels()
        self._started = self._clock()
        window = None if self.task.get("window") else extraction.window
        given = {"array": self._written, "channels": extraction.channels, "window": window}
        self._reports.append(("status", _("Segmenting...")))
        self._ask("segment", input=given, probabilities=False, **request.adjustment())

    def _handleEvent(self, kind: str, event: Event) -> None:
        name = event["event"]
        if name == "failed" and kind != "cancel":
            self._takeBack(kind)
            self._fail(event["message"], event.get("remedy", ""))
        elif name == "cancelled":
            self._takeBack(kind)
            self._reports.append(("cancelled",))
        elif kind == "segment" and name == "progress":
            self._reports.append(("progress", event["done"], event["total"], self._left(event)))
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
        masks = protocol.read_array(self.worker.exchange, result["masks"])
        self._remove(result["masks"])
        if kind == "segment":
            self._remove(self._written)
            self._handle = result.get("result")
            if self._cancelled:  # the end was faster
                self._takeBack(kind)
                self._reports.append(("cancelled",))
                return
        if self._handle is None:  # taken back meanwhile
            return
        if self._next is not None:
            fields, self._next = self._next, None
            self._ask("rethreshold", result=self._handle, **fields)
            return
        node = self.logic.complete(masks, surface=self._request.surface)
        self._reports.append(("finished", node))

    def _showPartial(self, event: Event) -> None:
        """Show a picture, unless the last one was shown just now: the end shows all."""
        now = self._clock()
        if self._cancelled or now - self._shown < PARTIAL_S or self._extraction.count == 1:
            return
        masks = protocol.read_array(self.worker.exchange, event["file"])
        self.logic.updatePartial(event["frame"], masks)
        self._shown = now
        self._reports.append(("partial", event["frame"]))

    def _left(self, event: Event) -> float | None:
        done, total = event["done"], event["total"]
        return (self._clock() - self._started) / done * (total - done) if done else None

    def _keepExport(self, result: dict[str, Any]) -> None:
        made = protocol.inside(self.worker.exchange, result["file"])
        self._export.parent.mkdir(parents=True, exist_ok=True)
        part = self._export.with_name(f"{self._export.name}.part")
        part.write_bytes(made.read_bytes())
        part.replace(self._export)
        made.unlink(missing_ok=True)
        self._remove(self._written)
        self._reports.append(("exported", str(self._export)))

    def _takeBack(self, kind: str) -> None:
        """Leave no half-made result behind."""
        if kind in ("segment", "write_seg"):
            self._remove(self._written)
        if kind == "segment":
            self.logic.undo()
            self._handle = None

    def _remove(self, reference: dict[str, Any] | None) -> None:
        if reference is not None and self.worker.exchange is not None:
            protocol.inside(self.worker.exchange, reference["file"]).unlink(missing_ok=True)

    def _fail(self, message: str, remedy: str) -> None:
        self._next = None
        self._reports.append(("failed", message, remedy))
