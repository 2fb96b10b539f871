"""The operations that take time, by name; PyTorch is imported when the first needs it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2unet_core.types import Series
from sam2unet_core.worker.exchange import ArrayWriter, Exchange
from sam2unet_core.worker.fields import MAX_FRAMES, Fields
from sam2unet_core.worker.job import Job
from sam2unet_core.worker.roots import Roots
from sam2unet_core.worker.studies import Reader, Studies, describe, source_of
from sam2unet_core.worker.warned import Warned

if TYPE_CHECKING:
    from sam2unet_core.worker.network import Network

Result = dict[str, Any]


class Engine:
    """Does what requests ask for, in the main thread.

    Args:
        exchange: where arrays come from and go to.
        roots: which paths requests may name.
    """

    def __init__(self, exchange: Exchange, roots: Roots) -> None:
        self._exchange = exchange
        self._roots = roots
        self._studies = Studies(roots)
        self._reader = Reader()
        self._used_network = False

    @property
    def paths(self) -> tuple[Path, ...]:
        """Paths of the last request, whose names may not be told."""
        return self._studies.paths

    def do(self, operation: str, fields: Fields, job: Job) -> Result:
        """Do one operation and return its result.

        Raises:
            ProtocolError: the request is wrong.
            CancelledError: the job was stopped.
            SAM2UNetError, OSError, MemoryError: as the work goes.
        """
        self._studies.forget_paths()
        if operation != "read_frames":
            self._reader.close()
        operations: dict[str, Callable[[Fields, Job], Result]] = {
            "inspect": self._inspect,
            "read_frames": self._read_frames,
        }
        if operation in operations:
            return operations[operation](fields, job)
        return self._network.do(operation, fields, job)

    def close(self) -> None:
        """Let go of files."""
        if self._used_network:
            self._network.close()

    @cached_property
    def _network(self) -> Network:
        from sam2unet_core.worker.network import Network  # noqa: PLC0415 - imports PyTorch

        self._used_network = True
        return Network(self._exchange, self._roots, self._studies)

    def _inspect(self, fields: Fields, job: Job) -> Result:
        path, task = fields.needed_text("path"), fields.text("task")
        fields.end()
        found = self._studies.scan(path, again=True, check=job.check)
        unknown = task is None and not self._used_network  # then any series is as good
        why = (lambda _series: None) if unknown else self._network.fits(task)
        series = [
            describe(each, index=index, why_not=why(each))
            for index, each in enumerate(found.series)
        ]
        return {"series": series, "skipped": found.skipped, "skipped_because": list(found.reasons)}

    def _read_frames(self, fields: Fields, job: Job) -> Result:
        path = fields.needed_text("path")
        index = fields.integer("series", 0, low=0, high=MAX_FRAMES) or 0
        start = fields.integer("start", 0, low=0, high=MAX_FRAMES) or 0
        count = fields.integer("count", None, low=1, high=MAX_FRAMES)
        fields.end()
        series = self._studies.series(path, index, check=job.check)
        end = series.frame_count if count is None else min(start + count, series.frame_count)
        chosen = range(start, max(start, end))
        warned = Warned(series)
        with ArrayWriter(self._exchange, "|u1") as writer:
            for frame in warned.of(self._reader.frames(series, chosen)):
                writer.append(frame.pixels)
                job.progress(frame.index - start + 1, len(chosen))
        return {
            "frames": self._whole(writer, series),
            "frames_per_second": series.frames_per_second,
            "rows": series.rows,
            "columns": series.columns,
            "source": source_of(series),
            "warnings": warned.told(),
        }

    @staticmethod
    def _whole(writer: ArrayWriter, series: Series) -> dict[str, Any]:
        reference = writer.reference
        if not reference["shape"][0]:
            reference["shape"] = [0, series.rows, series.columns, 3]
        return reference
