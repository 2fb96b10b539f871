"""The events that pass between the stages of a batch run, and the first stage, decoding.

Decoding, the network (`inference.engine`) and writing each run in their own thread. The network
passes all events but frames through.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from sam2unet_core.batch.folder import Line, Status
from sam2unet_core.batch.settings import Settings
from sam2unet_core.batch.units import (
    Naming,
    Row,
    Unit,
    skipped_path,
    skipped_row,
    source_of,
    unit_rows,
)
from sam2unet_core.errors import GeometryError, InputError, Reason, SAM2UNetError, is_out_of_memory
from sam2unet_core.files import without_names
from sam2unet_core.inference.engine import FrameFailure, FrameResult
from sam2unet_core.task import Task
from sam2unet_core.types import Frame, Kind, Rejection, Series, Skipped, rejection_reason

Item = Series | Skipped


@dataclass(frozen=True)
class Problem:
    """Why a unit could not be finished.

    Attributes:
        reason: the reason for the manifest.
        message: the reason in words, without file names.
        detail: a traceback for `private/`; empty for expected errors.
    """

    reason: Reason
    message: str
    detail: str = ""


@dataclass(frozen=True)
class Passed:
    """Inputs with nothing to segment: skipped, rejected, unreadable, or already done.

    Attributes:
        lines: their manifest lines.
        rows: their rows in `private/sources.csv`.
        frames: number of frames that were already done.
    """

    lines: tuple[Line, ...]
    rows: tuple[Row, ...] = ()
    frames: int = 0


@dataclass(frozen=True)
class Begin:
    """The frames of this unit follow."""

    unit: Unit
    key: str


@dataclass(frozen=True)
class End:
    """The unit has no more frames.

    Attributes:
        problem: why decoding stopped early, or None.
        decode_s: seconds spent decoding.
    """

    problem: Problem | None = None
    decode_s: float = 0.0


Decoded = Passed | Begin | Frame | End
Segmented = Passed | Begin | FrameResult | FrameFailure | End


@dataclass
class Decoder:
    """The first stage: finds what there is to do and decodes the frames.

    Args:
        items: the inputs.
        task: the task, which has accepted sources and a grey window.
        settings: the settings of the run.
        naming: assigns ids and names.
        key_of: returns the key of a unit.
        done_lines: returns the manifest lines of a unit that is already done, else None.
    """

    items: Iterable[Item]
    task: Task
    settings: Settings
    naming: Naming
    key_of: Callable[[Unit], str]
    done_lines: Callable[[Unit, str], tuple[Line, ...] | None]

    def events(self) -> Iterator[Decoded]:
        """Yield the inputs in order; each unit as `Begin`, its frames and `End`."""
        for item in self.items:
            if isinstance(item, Skipped):
                identity = self._name(item)  # in every shard, so that all assign the same names
                if self._in_shard(skipped_path(item)):
                    yield self._skipped(item, identity)
            else:
                yield from self._series(item)

    def _in_shard(self, name: str) -> bool:
        return self.settings.shard is None or self.settings.shard.holds(name)

    def _name(self, item: Skipped) -> str:
        relative = skipped_path(item)
        source = source_of(item.path, archive=item.archive, relative=relative)
        return self.naming.instance_id(relative, source, content=lambda: {item.sha256})

    def _skipped(self, item: Skipped, identity: str) -> Passed:
        line = Line(
            id=identity,
            source_sha256=item.sha256,
            kind=Kind.OTHER,
            study=None,
            series=None,
            status=Status.FAILED if item.reason.is_failure else Status.SKIPPED,
            reason=item.reason,
            message=without_names(item.message, [item.path]),
        )
        return Passed((line,), (skipped_row(item, identity, skipped_path(item)),))

    def _series(self, series: Series) -> Iterator[Decoded]:
        unit = Unit.of(series, self.naming)
        if not self._in_shard(unit.relatives[0]):
            return
        try:
            key = self.key_of(unit)
        except OSError as error:
            yield self._unreadable(unit, error)
            return
        rejection = rejection_reason(self.task, series.properties)
        if rejection is not None and not self.settings.force_task:
            yield self._rejected(unit, key, rejection)
            return
        lines = None if self.settings.redo else self.done_lines(unit, key)
        if lines is not None:
            yield Passed(lines, frames=sum(line.frames for line in lines))
            return
        yield Begin(unit, key)
        yield from self._frames(unit)

    def _frames(self, unit: Unit) -> Iterator[Decoded]:
        window, stride = self.task.window, self.settings.stride
        chosen = range(0, unit.series.frame_count, stride) if stride > 1 else None
        spent, problem = 0.0, None
        try:
            frames = unit.series.frames(indices=chosen, window=window, on_error=unit.problem)
            while True:
                started = time.perf_counter()
                frame = next(frames, None)
                spent += time.perf_counter() - started
                if frame is None:
                    break
                yield frame
        except Exception as error:
            problem = problem_of(error, unit)
        yield End(problem, decode_s=spent)

    def _rejected(self, unit: Unit, key: str, rejection: Rejection) -> Passed:
        message = f"{rejection.message}; --force-task segments it anyway"
        lines = (
            replace(
                unit.line(index, key=key, status=Status.SKIPPED),
                reason=rejection.reason,
                message=message,
            )
            for index in range(len(unit.ids))
        )
        return Passed(tuple(lines), tuple(unit_rows(unit)))

    def _unreadable(self, unit: Unit, error: OSError) -> Passed:
        lines = (
            Line(
                id=identity,
                source_sha256=None,
                kind=unit.series.kind,
                study=unit.study,
                series=unit.series_name,
                status=Status.FAILED,
                reason=Reason.CORRUPT,
                message=f"a file of the series cannot be read: {error.strerror or 'no reason'}",
            )
            for identity in unit.ids
        )
        return Passed(tuple(lines), tuple(unit_rows(unit)))


def problem_of(error: Exception, unit: Unit) -> Problem:
    """Convert an error to a problem; unexpected ones keep their traceback."""
    paths = [instance.path for instance in unit.series.instances]
    if isinstance(error, InputError):
        return Problem(error.reason, without_names(str(error), paths))
    if is_out_of_memory(error):
        return Problem(Reason.OUT_OF_MEMORY, str(error) or "out of memory")
    if isinstance(error, GeometryError):
        return Problem(Reason.INCONSISTENT_GEOMETRY, without_names(str(error), paths))
    if isinstance(error, SAM2UNetError):
        return Problem(Reason.CORRUPT, without_names(str(error), paths))
    if isinstance(error, OSError):
        return Problem(Reason.CORRUPT, f"cannot be read: {error.strerror or type(error).__name__}")
    detail = "".join(traceback.format_exception(error))
    message = f"unexpected {type(error).__name__}; private/errors.log has the details"
    return Problem(Reason.INTERNAL, message, detail)
