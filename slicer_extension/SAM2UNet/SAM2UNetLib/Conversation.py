"""Requests to the worker, their answers, and what is told of them, without waiting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import protocol
from .Errors import ModuleError
from .Handover import Handover
from .Texts import _
from .WorkerProcess import Event, WorkerProcess

Report = tuple[Any, ...]
"""("status", text), ("progress", done, total, seconds left or None), ("partial", picture),
("warned", texts), ("finished", node), ("failed", message, remedy), ("cancelled",),
("exported", path)."""


class Conversation:
    """What is open with the worker; a subclass says what is done with the answers.

    Args:
        worker: started when it is first needed.
        onOther: told of the worker's events that are answers to others' requests.
    """

    def __init__(self, worker: WorkerProcess, onOther: Callable[[Event], Any] | None) -> None:
        self.worker = worker
        self._handover = Handover(worker)
        self._onOther = onOther
        self._reports: list[Report] = []
        self._ids: dict[int, str] = {}
        self._cancelled = False

    @property
    def isBusy(self) -> bool:
        """Whether a run, a change of the threshold or an export is not finished."""
        return bool(self._ids) or self._handover.isOpen

    def poll(self) -> list[Report]:
        """Do what can be done without waiting, and return what happened since the last call."""
        for event in self.worker.poll():
            kind = self._ids.get(event.get("id"))
            if kind is None:
                if self._onOther is not None:
                    self._onOther(event)
                continue
            ended = event["event"] in protocol.TERMINAL
            if ended:
                del self._ids[event["id"]]
            try:
                self._handleEvent(kind, event)
            except (ModuleError, protocol.ProtocolError, OSError) as error:
                if ended:
                    self._takeBack(kind)
                self._failWith(error)
        if self._handover.isOpen and not self._handover.isWriting and not self._ids:
            self._handover.end()
            self._handedOver()
        reports, self._reports = self._reports, []
        return reports

    def cancel(self) -> None:
        """End the run; what it wrote into the scene is taken back when it has ended."""
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
        self._ids = {}

    def _handleEvent(self, kind: str, event: Event) -> None:
        """Do what an event of an own request of that kind asks for."""
        raise NotImplementedError

    def _handedOver(self) -> None:
        """Go on once an array is written and no request is open."""
        raise NotImplementedError

    def _takeBack(self, kind: str) -> None:
        """Leave nothing half-made of a request of that kind."""
        raise NotImplementedError

    def _ask(self, operation: str, **fields: Any) -> None:
        self._ids[self.worker.request(operation, **fields)] = operation

    def _tell(self, *report: Any) -> None:
        self._reports.append(report)

    def _tellWarnings(self, result: dict[str, Any], others: Sequence[str] = ()) -> None:
        """Tell what was guessed, left out or concealed in reading the pictures.

        Args:
            result: of the worker.
            others: what was known before.
        """
        found = [str(each["message"]) for each in result.get("warnings") or ()]
        texts = list(dict.fromkeys([*others, *found]))
        if texts:
            self._tell("warned", texts)

    def _fail(self, message: str, remedy: str) -> None:
        self._tell("failed", message, remedy)

    def _failWith(self, error: ModuleError | protocol.ProtocolError | OSError) -> None:
        if isinstance(error, OSError):
            self._fail(str(error.strerror or error), _("Free some disk space and try again."))
        else:
            self._fail(error.message, error.remedy)
