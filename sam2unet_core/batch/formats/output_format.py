"""The base classes of output formats: name, help text, requirements and writing."""

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
"""Called with the results of a unit, frame by frame."""


@dataclass(frozen=True)
class Unfit:
    """Why a format does not fit a unit.

    Attributes:
        format: the format's name.
        reason: the reason for the manifest.
        message: the reason in words.
    """

    format: str
    reason: Reason
    message: str


class OutputFormat(ABC):
    """A file format for results."""

    name: ClassVar[str]
    """Its name for `--format`."""
    help: ClassVar[str]
    """Its description for the command line, the batch tab in Slicer and the documentation."""

    def unfit(self, unit: Unit) -> Unfit | None:
        """Return why this format does not fit a unit; None if it fits."""
        return None

    @abstractmethod
    def open(self, work: UnitWork, stack: ExitStack) -> Sink:
        """Return the sink that writes the results of a unit.

        Libraries are imported here, when the first unit needs them.

        Args:
            work: the unit and its context.
            stack: receives the contexts that close the files.
        """


class PictureFile(NamedTuple):
    """One picture file of a frame."""

    suffix: str
    kind: str
    """Its kind in the manifest."""
    write: Callable[[Path], None]


class PictureFormat(OutputFormat):
    """A format of one or more pictures per frame."""

    @abstractmethod
    def pictures(self, result: FrameResult, task: Task) -> Iterator[PictureFile]:
        """Yield the pictures of one frame."""

    def open(self, work: UnitWork, stack: ExitStack) -> Sink:
        """Return the sink that writes the pictures of a unit."""

        def add(result: FrameResult) -> None:
            frame = result.frame
            base = work.unit.frame_base(frame.instance, frame.number)
            for each in self.pictures(result, work.model.task):
                target = Target(f"{base}.{each.suffix}", each.kind, frame.instance)
                each.write(work.staging.file(target))

        return add

    def write(self, stem: Path, result: FrameResult, task: Task) -> None:
        """Write the pictures of one frame as `stem` plus suffix, in an existing folder."""
        for each in self.pictures(result, task):
            each.write(stem.with_name(f"{stem.name}.{each.suffix}"))


def unfit_without_dicom(name: str, unit: Unit) -> Unfit | None:
    """Return why a format that needs a DICOM source does not fit a unit; None if it fits."""
    if unit.dicom:
        return None
    message = "the source is not DICOM; use the format auto"
    return Unfit(name, Reason.UNSUPPORTED_OUTPUT, message)


def unfit_in_another_plane(name: str, unit: Unit) -> Unfit | None:
    """Return why a format that refers to stored frames does not fit a unit; None if it fits."""
    if not unit.cut:
        return None
    message = "it refers to the stored frames, but --plane cuts new ones"
    return Unfit(name, Reason.UNSUPPORTED_OUTPUT, message)
