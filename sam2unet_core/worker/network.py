"""The operations that need a network or what it found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.modules.module import register_module_forward_pre_hook

from sam2unet_core.batch.units import accepted
from sam2unet_core.protocol import ProtocolError
from sam2unet_core.task import Task, load_preset
from sam2unet_core.types import Series
from sam2unet_core.worker.exchange import Exchange
from sam2unet_core.worker.export import Exporter
from sam2unet_core.worker.fields import Adjustment, Fields, LoadOptions
from sam2unet_core.worker.job import Job
from sam2unet_core.worker.models import Model, Models
from sam2unet_core.worker.results import Results
from sam2unet_core.worker.roots import Roots
from sam2unet_core.worker.segmenting import SegmentRequest, rethreshold, segment
from sam2unet_core.worker.studies import Studies

Result = dict[str, Any]


class Network:
    """Loads, segments, thresholds again and exports.

    Args:
        exchange: where arrays come from and go to.
        roots: which paths requests may name.
        studies: opens them.
    """

    def __init__(self, exchange: Exchange, roots: Roots, studies: Studies) -> None:
        self._exchange = exchange
        self._studies = studies
        self._models = Models(studies)
        self._results = Results(exchange)

    def do(self, operation: str, fields: Fields, job: Job) -> Result:
        """Do one operation and return its result."""
        operations: dict[str, Callable[[Fields, Job], Result]] = {
            "load": self._load,
            "segment": self._segment,
            "rethreshold": self._rethreshold,
            "write_seg": self._write_seg,
        }
        with stoppable(job):
            return operations[operation](fields, job)

    def fits(self, task: str | None) -> Callable[[Series], str | None]:
        """Return what says why a task, by default the loaded one's, is not made for a series."""
        current = self._models.current
        chosen = load_preset(task) if task is not None else current and current.segmenter.task
        if not isinstance(chosen, Task):
            return lambda _series: None
        named: Task = chosen
        return lambda series: why_not(series, named)

    def close(self) -> None:
        """Let go of files."""
        self._results.close()

    def _load(self, fields: Fields, job: Job) -> Result:
        started = time.perf_counter()
        options = LoadOptions.take(fields)
        fields.end()
        model = self._models.get(options)
        return {**model.describe(), "ms": _ms(started)}

    def _segment(self, fields: Fields, job: Job) -> Result:
        wanted = fields.inner("load")
        request = SegmentRequest.take(fields, self._exchange.folder)
        model = self._model(wanted)
        return segment(
            request,
            job,
            model=model,
            studies=self._studies,
            exchange=self._exchange,
            results=self._results,
            why_not=why_not,
        )

    def _rethreshold(self, fields: Fields, job: Job) -> Result:
        handle = fields.needed_text("result")
        frames, adjustment = fields.frames(), Adjustment.take(fields)
        fields.end()
        kept = self._results.get(handle)
        return rethreshold(kept, adjustment, job, frames=frames, exchange=self._exchange)

    def _write_seg(self, fields: Fields, job: Job) -> Result:
        wanted, named = fields.inner("load"), fields.anything("task")
        exporter = Exporter.take(fields, self._exchange)
        model = self._model(wanted)
        task = _task(named) or model.segmenter.task
        return exporter.write(job, model=model, task=task, studies=self._studies, why_not=why_not)

    def _model(self, wanted: Fields | None) -> Model:
        """Return the network that a request asks for, else the current, else the default."""
        if wanted is None:
            return self._models.current or self._models.get(LoadOptions())
        options = LoadOptions.take(wanted)
        wanted.end()
        return self._models.get(options)


@contextmanager
def stoppable(job: Job) -> Iterator[None]:
    """Let a job stop between any two layers of a network, not only between frames."""
    hook = register_module_forward_pre_hook(lambda _module, _inputs: job.check())
    try:
        yield
    finally:
        hook.remove()


def why_not(series: Series, task: Task) -> str | None:
    """Return why a task is not made for a series; None where it is."""
    return accepted(series, task).partition(";")[0] or None


def _task(named: object) -> Task | None:
    """Return the task that a request names or holds."""
    if named is None:
        return None
    if isinstance(named, str):
        return load_preset(named)
    if not isinstance(named, dict):
        raise ProtocolError("bad_request", "task: expected a name or a task's content")
    return Task.from_dict(named)


def _ms(started: float) -> float:
    return round(1000 * (time.perf_counter() - started), 2)
