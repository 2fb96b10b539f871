"""The operations that need a model or its results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.modules.module import register_module_forward_pre_hook

from sam2unet_core.inference.model import Model
from sam2unet_core.protocol import ProtocolError
from sam2unet_core.task import Task
from sam2unet_core.worker.exchange import Exchange
from sam2unet_core.worker.export import Exporter
from sam2unet_core.worker.fields import Adjustment, Fields, LoadOptions, take_task
from sam2unet_core.worker.models import Models, describe
from sam2unet_core.worker.results import Results
from sam2unet_core.worker.running import RunningRequest
from sam2unet_core.worker.segmenting import SegmentRequest, rethreshold, segment
from sam2unet_core.worker.studies import Studies

Result = dict[str, Any]


class ModelOperations:
    """Loads models, segments, rethresholds and exports.

    Args:
        exchange: the exchange folder.
        studies: opens the studies that requests name.
    """

    def __init__(self, exchange: Exchange, studies: Studies) -> None:
        self._exchange = exchange
        self._studies = studies
        self._models = Models(studies)
        self._results = Results(exchange)

    def do(self, operation: str, fields: Fields, job: RunningRequest) -> Result:
        """Do one operation and return its result."""
        operations: dict[str, Callable[[Fields, RunningRequest], Result]] = {
            "load": self._load,
            "segment": self._segment,
            "rethreshold": self._rethreshold,
            "write_seg": self._write_seg,
        }
        with stoppable(job):
            return operations[operation](fields, job)

    @property
    def current_task(self) -> Task | None:
        """The task of the current model; None if no model was loaded."""
        model = self._models.current
        return None if model is None else model.task

    def close(self) -> None:
        """Delete the stored results."""
        self._results.close()

    def _load(self, fields: Fields, job: RunningRequest) -> Result:
        started = time.perf_counter()
        options = LoadOptions.take(fields)
        fields.end()
        model = self._models.get(options)
        return {**describe(model), "ms": round(1000 * (time.perf_counter() - started), 2)}

    def _segment(self, fields: Fields, job: RunningRequest) -> Result:
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
        )

    def _rethreshold(self, fields: Fields, job: RunningRequest) -> Result:
        handle = fields.needed_text("result")
        frames, adjustment = fields.frames(), Adjustment.take(fields)
        sparse = fields.flag("sparse")
        fields.end()
        kept, folder = self._results.get(handle), self._exchange
        return rethreshold(kept, adjustment, job, frames=frames, sparse=sparse, exchange=folder)

    def _write_seg(self, fields: Fields, job: RunningRequest) -> Result:
        wanted, named = fields.inner("load"), fields.anything("task")
        exporter = Exporter.take(fields, self._exchange)
        if exporter.drawn is not None:
            if named is not None:
                raise ProtocolError("bad_request", "task: expected none beside `segments`")
            model = None if wanted is None else self._model(wanted)
            task = exporter.drawn.task
        else:
            model = self._model(wanted)
            task = model.task if named is None else take_task(named)
        return exporter.write(job, model=model, task=task, studies=self._studies)

    def _model(self, wanted: Fields | None) -> Model:
        """Return the requested model, else the current one, else the default."""
        if wanted is None:
            return self._models.current or self._models.get(LoadOptions())
        options = LoadOptions.take(wanted)
        wanted.end()
        return self._models.get(options)


@contextmanager
def stoppable(job: RunningRequest) -> Iterator[None]:
    """Make a request cancellable between any two layers of the network."""
    hook = register_module_forward_pre_hook(lambda _module, _inputs: job.check())
    try:
        yield
    finally:
        hook.remove()
