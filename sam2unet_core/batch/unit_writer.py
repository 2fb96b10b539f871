"""The third stage: writes the results of one unit as files, findings and manifest lines."""

from __future__ import annotations

import errno
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace

from sam2unet_core.batch.folder import Line, Output, Status
from sam2unet_core.batch.formats import OutputFile, Sink, Unfit, UnitWork, open_sinks
from sam2unet_core.batch.stages import End, Problem, problem_of
from sam2unet_core.errors import (
    GeometryError,
    InputError,
    OutputError,
    Reason,
    SAM2UNetError,
    is_disk_full,
)
from sam2unet_core.inference.engine import FrameFailure, FrameResult
from sam2unet_core.report.findings import Findings, FindingsCollector
from sam2unet_core.types import Caution, Series


class UnitWriter:
    """Writes the files of one unit.

    An error while writing ends the unit, not the run; `finish` returns it.

    Args:
        work: the unit and what to write.
        key: the unit's key.
    """

    def __init__(self, work: UnitWork, *, key: str) -> None:
        self._work = work
        self._key = key
        series = work.unit.series
        seconds = 1 / series.frames_per_second if series.frames_per_second else None
        self._collector = FindingsCollector(
            work.model.task,
            seconds * work.settings.stride if seconds and work.unit.moving else None,
        )
        self._frames: Counter[int] = Counter()
        self._with_findings: Counter[int] = Counter()
        self._stack = ExitStack()
        self._sinks: list[Sink] = []
        self._unfit: list[Unfit] = []
        self.cautions = CautionLog(series)
        self._write_problem: Problem | None = None
        self._network_problem: Problem | None = None
        self._spent_s = 0.0
        self._network_s = 0.0
        self.out_of_space = False
        self._opened = False

    def add(self, result: FrameResult) -> None:
        """Write the result of one frame."""
        self._network_s += result.seconds
        if self._write_problem is not None:
            return
        started = time.perf_counter()
        try:
            if not self._opened:
                self._open()
            for sink in self._sinks:
                sink(result)
        except Exception as error:
            self._fail(error)
        else:
            self._count(result)
        self._spent_s += time.perf_counter() - started

    def failed(self, failure: FrameFailure) -> None:
        """Record that the network failed; the results so far are kept."""
        self._network_problem = problem_of(failure.error, self._work.unit)

    def finish(self, end: End) -> tuple[list[Line], Findings, Problem | None]:
        """Publish the files.

        Returns:
            A line for each instance, the findings, and the problem of the whole unit, if any.
        """
        started = time.perf_counter()
        outputs: list[tuple[OutputFile, Output]] = []
        stopped_by = end.problem or self._network_problem
        if self._write_problem is None and (stopped_by is None or self._frames):
            outputs = self._publish()
        else:
            self._abandon()
        problem = self._write_problem or stopped_by
        self._spent_s += time.perf_counter() - started
        return self._lines(end, problem, outputs), self._collector.result(), problem

    def _open(self) -> None:
        self._opened = True
        self._work.staging.create()
        self._sinks, self._unfit = open_sinks(self._work, self._stack)

    def _count(self, result: FrameResult) -> None:
        instance = result.frame.instance
        area = self._collector.add(
            result.frame, result.probabilities, masks=result.masks, labels=result.labels
        )
        touched = range(len(self._work.unit.ids)) if self._work.unit.cut else (instance,)
        for each in touched:  # a reformatted frame cuts through all instances
            self._frames[each] += 1
            self._with_findings[each] += area > 0
            self.cautions.add(each, result.frame.cautions, number=result.frame.number)

    def _publish(self) -> list[tuple[OutputFile, Output]]:
        """Close the sinks, then move their files to the results folder."""
        if not self._opened:
            return []
        try:
            self._stack.close()
            return self._work.staging.publish()
        except Exception as error:
            self._fail(error)
            return []
        finally:
            self._work.staging.remove()

    def _abandon(self) -> None:
        """Close the sinks with an error, so that none of them leaves a file."""
        error = OutputError("the unit was abandoned")
        with suppress(OutputError):
            self._stack.__exit__(OutputError, error, None)
        self._work.staging.remove()

    def _fail(self, error: Exception) -> None:
        if isinstance(error, OSError):
            self.out_of_space = is_disk_full(error)
            reason = error.strerror or type(error).__name__
            text = f"cannot be written: {reason}"
            if error.errno == errno.ENAMETOOLONG:
                text = "the result's file name is too long; use --pseudonymize for short names"
            self._write_problem = Problem(Reason.WRITE_FAILED, text)
            return
        found = problem_of(error, self._work.unit)
        if isinstance(error, SAM2UNetError) and not isinstance(error, InputError | GeometryError):
            found = replace(found, reason=Reason.WRITE_FAILED)
        self._write_problem = found

    def _lines(
        self, end: End, problem: Problem | None, outputs: list[tuple[OutputFile, Output]]
    ) -> list[Line]:
        unit = self._work.unit
        count = len(unit.ids)
        spent = {"decode": end.decode_s, "network": self._network_s, "write": self._spent_s}
        share = {name: round(1000 * seconds / count) for name, seconds in spent.items()}
        lines = []
        for index in range(count):
            self._note_omissions(index, problem)
            status, reason, message = self._verdict(index, problem)
            line = unit.line(index, key=self._key, status=status)
            mine = tuple(o for t, o in outputs if t.instance in (None, index))
            lines.append(
                replace(
                    line,
                    reason=reason,
                    message="; ".join(filter(None, (message, *self.cautions.texts(index)))),
                    warnings=self.cautions.codes(index),
                    frames=self._frames[index],
                    frames_with_findings=self._with_findings[index],
                    outputs=mine,
                    ms=share,
                )
            )
        return lines

    def _verdict(self, index: int, problem: Problem | None) -> tuple[Status, Reason | None, str]:
        """Return status, reason and message of an instance."""
        own = self._work.unit.problems.get(index)
        if own is not None:
            found = problem_of(own, self._work.unit)
            return Status.FAILED, found.reason, self._partly(index, found.message)
        if problem is not None:
            return Status.FAILED, problem.reason, self._partly(index, problem.message)
        if self._unfit:
            return Status.FAILED, self._unfit[0].reason, ""
        return (Status.DONE if self._with_findings[index] else Status.EMPTY), None, ""

    def _note_omissions(self, index: int, problem: Problem | None) -> None:
        for each in self._unfit:
            text = f"no {each.format}: {each.message}"
            self.cautions.add(index, [Caution("output_omitted", text)])
        total = self._work.unit.series.instances[index].frames
        stride, done = self._work.settings.stride, self._frames[index]
        complete = problem is None and index not in self._work.unit.problems
        if stride > 1 and complete and done < total and not self._work.unit.cut:
            text = f"{total - done} of {total} frames were not segmented (--stride {stride})"
            self.cautions.add(index, [Caution("frames_not_taken", text)])

    def _partly(self, index: int, message: str) -> str:
        done, total = self._frames[index], self._work.unit.series.instances[index].frames
        return f"{message} ({done} of {total} frames were done)" if done else message


_MOST_NUMBERS = 8
"""Frame numbers that one sentence lists at most."""


class CautionLog:
    """Collects cautions by instance: first those of the headers, then those of frames.

    Args:
        series: the series whose instances' cautions to start with.
    """

    def __init__(self, series: Series) -> None:
        self._one_each = series.frame_count == len(series.instances)
        self._found: dict[int, dict[Caution, list[int]]] = defaultdict(dict)
        for index, instance in enumerate(series.instances):
            self.add(index, instance.cautions)

    def add(self, instance: int, cautions: Iterable[Caution], *, number: int | None = None) -> None:
        """Add cautions of an instance and the number of their frame, from 1."""
        for caution in cautions:
            numbers = self._found[instance].setdefault(caution, [])
            if number is not None and not self._one_each:
                numbers.append(number)

    def codes(self, instance: int) -> tuple[str, ...]:
        """Return the distinct codes of an instance in alphabetical order."""
        return tuple(sorted({caution.code for caution in self._found[instance]}))

    def texts(self, instance: int) -> tuple[str, ...]:
        """Return one sentence per caution of an instance."""
        found = self._found[instance].items()
        return tuple(f"{caution.message}{_frames(numbers)}" for caution, numbers in found)

    def all_texts(self) -> tuple[str, ...]:
        """Return the distinct sentences of all instances."""
        return tuple(dict.fromkeys(t for index in sorted(self._found) for t in self.texts(index)))


def _frames(numbers: list[int]) -> str:
    if not numbers:
        return ""
    more = len(numbers) - _MOST_NUMBERS
    named = ", ".join(map(str, numbers[:_MOST_NUMBERS]))
    rest = f" and {more} more" if more > 0 else ""
    return f" (frame{'s' if len(numbers) > 1 else ''} {named}{rest})"
