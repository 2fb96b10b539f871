"""What every output format has: a name, a help text, what it needs, and how it writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from sam2unet_core.batch.outputs import Target, UnitWork
from sam2unet_core.errors import Reason

if TYPE_CHECKING:
    from sam2unet_core.batch.units import Unit
    from sam2unet_core.inference.engine import FrameResult
    from sam2unet_core.task import Task

Sink = Callable[["FrameResult"], None]
"""Takes the results of a unit, frame by frame."""


@dataclass(frozen=True)
class Unfit:
    """A format that a unit cannot have.

    Attributes:
        format: its name.
        reason: for the manifest.
        message: why, for people.
    """

    format: str
    reason: Reason
    message: str


class OutputFormat(ABC):
    """One kind of file that results are written as."""

    name: ClassVar[str]
    """As `--format` takes it."""
    help: ClassVar[str]
    """For the command line, the batch tab in Slicer and the pages."""

    def unfit(self, unit: Unit) -> Unfit | None:
        """Return why a unit cannot have this format; None where it can."""
        return None

    @abstractmethod
    def open(self, work: UnitWork, stack: ExitStack) -> Sink:
        """Return what writes the results of a unit.

        Libraries are imported here, when the first unit needs them.

        Args:
            work: the unit and what belongs to it.
            stack: gets the contexts that finish the files.
        """


class PictureFile(NamedTuple):
    """One picture file of a frame."""

    suffix: str
    kind: str
    """What the manifest calls it."""
    write: Callable[[Path], None]


class PictureFormat(OutputFormat):
    """Pictures, frame by frame."""

    @abstractmethod
    def pictures(self, result: FrameResult, task: Task) -> Iterator[PictureFile]:
        """Yield the pictures of one frame."""

    def open(self, work: UnitWork, stack: ExitStack) -> Sink:
        """Return what writes the pictures of a unit, each beside the frame it belongs to."""

        def add(result: FrameResult) -> None:
            frame = result.frame
            base = work.unit.frame_base(frame.instance, frame.number)
            for each in self.pictures(result, work.model.task):
                target = Target(f"{base}.{each.suffix}", each.kind, frame.instance)
                each.write(work.staging.file(target))

        return add

    def write(self, stem: Path, result: FrameResult, task: Task) -> None:
        """Write the pictures of one frame as `stem` with their suffixes; its folder is there."""
        for each in self.pictures(result, task):
            each.write(stem.with_name(f"{stem.name}.{each.suffix}"))


def unfit_without_dicom(name: str, unit: Unit) -> Unfit | None:
    """Return why a unit that did not come from DICOM cannot have a format that refers to it."""
    if unit.dicom:
        return None
    message = "the source is not DICOM; auto writes what suits it"
    return Unfit(name, Reason.UNSUPPORTED_OUTPUT, message)


def unfit_in_another_plane(name: str, unit: Unit) -> Unfit | None:
    """Return why a unit cut in another plane cannot have a format that refers to its frames."""
    if not unit.cut:
        return None
    message = "it refers to frames as they are stored, and --plane looks at others"
    return Unfit(name, Reason.UNSUPPORTED_OUTPUT, message)
