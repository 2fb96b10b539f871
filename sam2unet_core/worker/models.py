"""Models kept in memory; those with the same trunk share its tensors."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

from sam2unet_core.inference.model import Model, choose_model, open_model
from sam2unet_core.inference.runtimes import check_runtime
from sam2unet_core.worker.fields import LoadOptions
from sam2unet_core.worker.studies import Studies

MOST = 4
"""Models kept in memory; each further model with the same trunk needs little memory."""


class Models:
    """Loads models and keeps the most recent ones.

    Args:
        studies: checks which paths are allowed.
    """

    def __init__(self, studies: Studies) -> None:
        self._studies = studies
        self._loaded: OrderedDict[tuple[object, ...], Model] = OrderedDict()
        self.current: Model | None = None

    def get(self, options: LoadOptions) -> Model:
        """Return the requested model, loading it if necessary, and make it the current one.

        Raises:
            ProtocolError: a path is not allowed or does not exist.
            TaskError, WeightsError, MissingWeightsError, ConfigError: as `Segmenter.open`.
        """
        check_runtime(options.runtime)
        bundle = None if options.bundle is None else self._studies.file(options.bundle)
        weights = None if options.weights is None else self._studies.file(options.weights)
        source = choose_model(bundle, task=options.task, weights=weights)
        if bundle is not None:
            self._studies.file(str(source.file.absolute()))
        task = json.dumps(source.task.to_dict(), sort_keys=True)
        key = (task, *_identity(source.file), options.device, options.runtime)
        model = self._loaded.get(key)
        if model is None:
            model = self._loaded[key] = open_model(
                source,
                device=options.device,
                runtime=options.runtime,
                beside=self._loaded.values(),
            )
        self._loaded.move_to_end(key)
        while len(self._loaded) > MOST:
            self._loaded.popitem(last=False)
        self.current = model
        return model


def describe(model: Model) -> dict[str, Any]:
    """Return the description of a model in the results of `load` and `segment`."""
    return {
        "task": model.task.to_dict(),
        "device": str(model.runtime.device),
        "runtime": model.runtime.name,
        "notice": str(model.task.metrics.get("note") or "") or None,
        "weights_sha256": model.weights_sha256,
    }


def _identity(file: Path) -> tuple[object, ...]:
    """Return a key that changes when the file is replaced."""
    if not file.is_file():
        return (None,)
    status = file.stat()
    return (str(file.resolve()), status.st_mtime_ns, status.st_size)
