"""What the parts of the module need of one another, from the panel down to the worker.

    SegmentPanel -> RunControl -> RunSession -> WorkerControl
                                             -> ResultWriter

Each part gets its collaborators through its constructor; tests pass their own. Nodes of MRML are
`Any`: VTK has no types for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .Inputs import Extraction
    from .Request import Request
    from .Tasks import TaskEntry

Source = dict[str, str | None]
"""What a DICOM source states of itself: "modality", "sop_class_uid" and "photometric"."""
Event = dict[str, Any]
"""One event of the worker; docs/worker.md lists them."""
Report = tuple[Any, ...]
"""Something that happened, first what it is:
("offer", Offer), ("status", text), ("progress", done, total, seconds left or None), ("partial",
picture), ("warned", texts), ("finished", node), ("exported", path), ("failed", message, remedy),
("cancelled",); a session also ("rejection", question, message or ""), of which `Runs` makes
("rejections",), and `Runs` ("refined", node)."""


class Choices(Protocol):
    """What the user chose for a run: a parameter node, or its like in a script."""

    inputNode: Any
    what: str
    sliceView: Any
    outputSegmentation: Any
    force: bool
    threshold: float
    minimumSize: float
    smoothing: float
    keepLargest: bool


class PanelChoices(Choices, Protocol):
    """What the panel keeps in the scene besides: the task, its weights and the range."""

    first: int
    last: int
    task: str
    bundle: str
    weights: str


@runtime_checkable
class RunControl(Protocol):
    """What the panel needs of `Runs`."""

    @property
    def busy(self) -> bool:
        """Whether there is something to poll for."""

    @property
    def canUndo(self) -> bool:
        """Whether the last run can be undone."""

    @property
    def canRefine(self) -> bool:
        """Whether the last run's probabilities are kept."""

    @property
    def isEdited(self) -> bool:
        """Whether a person changed the last run's result since it was written."""

    @property
    def log(self) -> str:
        """The last lines of the worker's log."""

    def askForTasks(self, command: list[str]) -> None:
        """Ask an environment what it offers."""

    def rejection(self, source: Source | None, task: dict[str, Any]) -> str:
        """Return why a task is not made for a source; empty where it is or is not known yet."""

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
        """Begin a run."""

    def rethreshold(self, parameter: Choices) -> None:
        """Update the last result to the choices, without the network."""

    def exportDicomSeg(self, command: list[str], segmentationNode: Any, folder: str) -> None:
        """Write a segmentation of the scene as DICOM SEG."""

    def poll(self) -> list[Report]:
        """Return what happened since the last call."""

    def cancel(self) -> None:
        """Stop the run."""

    def undo(self) -> None:
        """Undo the last run."""

    def forget(self) -> None:
        """End a run and keep nothing of the scene."""

    def close(self) -> None:
        """End everything that runs."""


@runtime_checkable
class RunSession(Protocol):
    """What `Runs` needs of `Session`."""

    task: dict[str, Any] | None

    @property
    def isBusy(self) -> bool:
        """Whether a run, a change of its threshold or an export is not finished."""

    @property
    def isAsking(self) -> bool:
        """Whether a question is not answered."""

    @property
    def canRethreshold(self) -> bool:
        """Whether the last run's probabilities are kept."""

    @property
    def canUndo(self) -> bool:
        """Whether the last run can be undone."""

    @property
    def isEdited(self) -> bool:
        """Whether a person changed the last result since it was written."""

    @property
    def log(self) -> str:
        """The last lines of the worker's log."""

    def askForTasks(self) -> None:
        """Ask what the environment offers."""

    def askRejection(self, question: str, source: Source, task: dict[str, Any]) -> None:
        """Ask why a task is not made for a source."""

    def start(self, request: Request) -> None:
        """Begin a run."""

    def rethreshold(self, **refinement: Any) -> bool:
        """Compute the last run's masks again, without the network."""

    def exportDicomSeg(
        self,
        segmentationNode: Any,
        inputNode: Any,
        *,
        source: Path | str,
        output: Path | str,
    ) -> None:
        """Write a segmentation as DICOM SEG."""

    def poll(self) -> list[Report]:
        """Return what happened since the last call."""

    def cancel(self) -> None:
        """Stop the run."""

    def undo(self) -> None:
        """Undo the last run."""

    def close(self) -> None:
        """End the worker."""


@runtime_checkable
class WorkerControl(Protocol):
    """What a session needs of `WorkerProcess`."""

    exchange: Path | None

    @property
    def isAlive(self) -> bool:
        """Whether the worker was started and has not ended."""

    @property
    def log(self) -> str:
        """The last lines of the worker's log."""

    def start(self) -> None:
        """Start the worker; does nothing while it runs."""

    def request(self, operation: str, **fields: Any) -> int:
        """Send a request and return its number."""

    def cancel(self, identifier: int) -> int:
        """Ask that a request end as `cancelled`."""

    def poll(self) -> list[Event]:
        """Return the events that came since the last call."""

    def stop(self) -> None:
        """End the worker."""


@runtime_checkable
class ResultWriter(Protocol):
    """What a session needs of `SegmentationLogic`."""

    @property
    def canUndo(self) -> bool:
        """Whether there is a result to undo."""

    @property
    def isEdited(self) -> bool:
        """Whether a person changed the last result since it was written."""

    def begin(
        self, extraction: Extraction, task: dict[str, Any], *, segmentationNode: Any = None
    ) -> Any:
        """Prepare the segmentation that a run will fill."""

    def updatePartial(self, picture: int, masks: NDArray[np.uint8]) -> None:
        """Show the masks of one picture while the others are still computed."""

    def complete(
        self,
        masks: NDArray[np.uint8],
        *,
        surface: bool = True,
        tags: Mapping[str, str] | None = None,
    ) -> Any:
        """Write the masks of all pictures and return the segmentation."""

    def completeFound(
        self,
        found: Iterator[tuple[int, NDArray[np.uint8]]],
        *,
        tags: Mapping[str, str] | None = None,
    ) -> Iterator[Any]:
        """Write the masks of frames with findings, one at a time."""

    def leave(self) -> None:
        """Take the result as it is now: what is painted from here on is kept."""

    def undo(self, *, painted: bool = True) -> bool:
        """Undo the last result; return whether that was done."""


@runtime_checkable
class StudyFiles(Protocol):
    """What `Runs` needs of `DicomSource`."""

    root: Path

    def gather(self, instanceUids: Sequence[str], database: Any) -> Path:
        """Put the files of these instances where the worker may read them."""

    def locate(self, instanceUids: Sequence[str], database: Any) -> list[Path]:
        """Return the files of these instances."""

    def put(self, files: Sequence[Path]) -> Path:
        """Put files where the worker may read them; from any thread."""

    def clear(self) -> None:
        """Remove what was gathered."""

    def close(self) -> None:
        """Remove the folder."""
