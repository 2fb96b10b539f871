"""The operations that take time; PyTorch is imported when the first one needs it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2unet_core.task import Task, load_preset
from sam2unet_core.types import rejection_reason
from sam2unet_core.worker.exchange import ArrayWriter, Exchange
from sam2unet_core.worker.fields import MAX_FRAMES, Fields
from sam2unet_core.worker.roots import Roots
from sam2unet_core.worker.running import RunningRequest
from sam2unet_core.worker.samples import make_sample
from sam2unet_core.worker.studies import Reader, Studies, describe, reduced, source_of
from sam2unet_core.worker.warned import WarningLog

if TYPE_CHECKING:
    from sam2unet_core.worker.model_operations import ModelOperations

Result = dict[str, Any]
MAX_SCALE = 64
"""Largest divisor of the size of frames in `read_frames`."""


class Operations:
    """Executes requests, in the main thread.

    Args:
        exchange: the exchange folder.
        roots: the folders that requests may read.
    """

    def __init__(self, exchange: Exchange, roots: Roots) -> None:
        self._exchange = exchange
        self._studies = Studies(roots)
        self._reader = Reader()
        self._used_models = False

    @property
    def paths(self) -> tuple[Path, ...]:
        """Paths of the last request, whose names must not be sent."""
        return self._studies.paths

    def do(self, operation: str, fields: Fields, job: RunningRequest) -> Result:
        """Do one operation and return its result.

        Raises:
            ProtocolError: the request is invalid.
            CancelledError: the request was cancelled.
            SAM2UNetError, OSError, MemoryError: the operation failed.
        """
        self._studies.forget_paths()
        if operation != "read_frames":
            self._reader.close()
        operations: dict[str, Callable[[Fields, RunningRequest], Result]] = {
            "inspect": self._inspect,
            "read_frames": self._read_frames,
            "make_sample": lambda fields, job: make_sample(fields, job, self._exchange),
        }
        if operation in operations:
            return operations[operation](fields, job)
        return self._models.do(operation, fields, job)

    def close(self) -> None:
        """Delete the stored results."""
        if self._used_models:
            self._models.close()

    @cached_property
    def _models(self) -> ModelOperations:
        from sam2unet_core.worker.model_operations import ModelOperations  # noqa: PLC0415 - imports PyTorch

        self._used_models = True
        return ModelOperations(self._exchange, self._studies)

    def _inspect(self, fields: Fields, job: RunningRequest) -> Result:
        path, named = fields.needed_text("path"), fields.text("task")
        fields.end()
        found = self._studies.scan(path, again=True, check=job.check)
        task = load_preset(named) if named is not None else self._current_task()
        series = [
            describe(
                each,
                index=index,
                rejection=None if task is None else rejection_reason(task, each.properties),
            )
            for index, each in enumerate(found.series)
        ]
        return {"series": series, "skipped": found.skipped, "skipped_because": list(found.reasons)}

    def _read_frames(self, fields: Fields, job: RunningRequest) -> Result:
        path = fields.needed_text("path")
        index = fields.integer("series", 0, low=0, high=MAX_FRAMES) or 0
        start = fields.integer("start", 0, low=0, high=MAX_FRAMES) or 0
        count = fields.integer("count", None, low=1, high=MAX_FRAMES)
        step = fields.integer("step", 1, low=1, high=MAX_FRAMES) or 1
        scale = fields.integer("scale", 1, low=1, high=MAX_SCALE) or 1
        fields.end()
        series = self._studies.series(path, index, check=job.check)
        chosen = range(start, max(start, series.frame_count), step)[:count]
        warnings = WarningLog(series)
        with ArrayWriter(self._exchange, "|u1") as writer:
            for done, frame in enumerate(warnings.collect(self._reader.frames(series, chosen))):
                writer.append(reduced(frame.pixels, scale))
                job.progress(done + 1, len(chosen))
        reference = writer.reference
        if not reference["shape"][0]:
            reference["shape"] = [0, -(-series.rows // scale), -(-series.columns // scale), 3]
        return {
            "frames": reference,
            "frames_per_second": series.frames_per_second,
            "rows": series.rows,
            "columns": series.columns,
            "source": source_of(series),
            "warnings": warnings.to_list(),
        }

    def _current_task(self) -> Task | None:
        """Return the task of the current model; None if no model was loaded."""
        return self._models.current_task if self._used_models else None
