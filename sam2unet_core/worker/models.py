"""Networks that stay warm; those of one trunk share its tensors."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sam2unet_core.errors import WeightsError
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import WeightsInfo, read_info
from sam2unet_core.network.checkpoint.formats import read_checkpoint
from sam2unet_core.network.inference import share_trunk
from sam2unet_core.network.keys import is_trunk_key
from sam2unet_core.runtimes import check_runtime, weights_type
from sam2unet_core.runtimes.torch_runtime import TorchRuntime, choose_device
from sam2unet_core.segmenter import (
    Segmenter,
    bundled_weights,
    choose_task,
    load_for_inference,
)
from sam2unet_core.task import installed_bundle
from sam2unet_core.worker.fields import LoadOptions
from sam2unet_core.worker.studies import Studies

MOST = 4
"""Networks kept; those of one trunk cost little more than one."""


@dataclass(frozen=True)
class Model:
    """A network that is ready.

    Attributes:
        segmenter: segments with it.
        info: of its weights file.
    """

    segmenter: Segmenter
    info: WeightsInfo

    def describe(self) -> dict[str, Any]:
        """Return what `load` and `segment` say of it."""
        task = self.segmenter.task
        return {
            "task": task.to_dict(),
            "device": str(self.segmenter.runtime.device),
            "runtime": self.segmenter.runtime.name,
            "notice": str(task.metrics.get("note") or "") or None,
            "weights_sha256": self.info.sha256,
        }


class Models:
    """Loads networks and keeps the last ones.

    Args:
        studies: says which paths are allowed.
    """

    def __init__(self, studies: Studies) -> None:
        self._studies = studies
        self._loaded: OrderedDict[tuple[object, ...], Model] = OrderedDict()
        self.current: Model | None = None

    def get(self, options: LoadOptions) -> Model:
        """Return the network that is asked for, loading it unless it is there; now the current.

        Raises:
            ProtocolError: a path is not allowed or leads nowhere.
            TaskError, WeightsError, MissingWeightsError, ConfigError: as `Segmenter.open`.
        """
        check_runtime(options.runtime)
        bundle = None if options.bundle is None else self._studies.file(options.bundle)
        weights = None if options.weights is None else self._studies.file(options.weights)
        folder = bundle or installed_bundle()
        task = choose_task(folder, options.task, weights, bundle_given=bundle is not None)
        file = weights or _plain(folder, task.weights.file if task.weights else None)
        if bundle is not None and file is not None and file.exists():
            self._studies.file(str(file.absolute()))
        key = (
            json.dumps(task.to_dict(), sort_keys=True),
            *_identity(file),
            options.device,
            options.runtime,
        )
        model = self._loaded.get(key)
        if model is None:
            file = weights or bundled_weights(folder, task)
            info = read_info(file)
            device = choose_device(options.device)
            matrices = weights_type(options.runtime, task, device=device)
            network = self._on_shared_trunk(info, options, matrices)
            network = network or load_for_inference(file, matrices=matrices)
            segmenter = Segmenter(task, network, device=options.device, runtime=options.runtime)
            model = self._loaded[key] = Model(segmenter, info)
        self._loaded.move_to_end(key)
        while len(self._loaded) > MOST:
            self._loaded.popitem(last=False)
        self.current = model
        return model

    def _on_shared_trunk(
        self, info: WeightsInfo, options: LoadOptions, dtype: torch.dtype
    ) -> nn.Module | None:
        """Return a delta's network on the trunk of one that is loaded; None where there is none.

        The type has to be the same: a trunk that is prepared in one does not run in another.
        """
        how = (options.device, options.runtime)
        donor = next(
            (m for key, m in self._loaded.items() if key[-2:] == how and _has_trunk(m, info)), None
        )
        if not info.is_delta or info.trunk_sha256 is None or donor is None:
            return None
        runtime = donor.segmenter.runtime
        if not isinstance(runtime, TorchRuntime) or not isinstance(runtime.network, SAM2UNet):
            return None
        if runtime.dtype != dtype:  # `auto` takes what suits the task
            return None
        delta = read_checkpoint(info.path)
        if delta.variant is None:
            return None
        with torch.device("meta"):
            network = SAM2UNet(delta.variant, num_classes=delta.num_classes or 1)
        expected = {key for key in network.state_dict() if not is_trunk_key(key)}
        try:
            network.load_state_dict(delta.tensors, strict=False, assign=True)
        except RuntimeError as error:
            raise WeightsError(f"{info.path}: does not fit its trunk; get it again") from error
        if set(delta.tensors) != expected:
            raise WeightsError(f"{info.path}: does not fit its trunk; get it again")
        share_trunk(network, runtime.network)
        return network.eval()


def _has_trunk(model: Model, info: WeightsInfo) -> bool:
    return model.info.trunk_sha256 == info.trunk_sha256 and model.info.variant == info.variant


def _plain(folder: Path, name: str | None) -> Path | None:
    return None if name is None else folder / name


def _identity(file: Path | None) -> tuple[object, ...]:
    """Return what changes when a file is replaced."""
    if file is None or not file.is_file():
        return (None,)
    status = file.stat()
    return (str(file.resolve()), status.st_mtime_ns, status.st_size)
