"""OpenVINO: runs the network compiled for this processor."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sam2unet_core.errors import ConfigError
from sam2unet_core.inference.runtimes.runtime import Runtime, cached_file, write_once

logger = logging.getLogger(__name__)


def open_runtime(
    network: nn.Module, *, size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> Runtime:
    """Make the runtime; see `OpenVINORuntime`. Device and type are not used."""
    return OpenVINORuntime(network, size=size)


class OpenVINORuntime(Runtime):
    """Runs a network with OpenVINO on the CPU, in float32.

    In 16 bits, OpenVINO is twice as fast, but the starter network's masks of real frames differ too
    much from those of `exact`; see docs/notes/performance.md.

    The first start traces and compiles the network; the result is cached under a hash of weights,
    image size, processor and version.

    Args:
        network: maps `(N, 3, h, w)` to logits `(N, C, h, w)`, in float32 on the CPU.
        size: (height, width) of its images in pixels.

    Raises:
        ConfigError: OpenVINO is not installed.
    """

    name = "openvino"

    def __init__(self, network: nn.Module, *, size: tuple[int, int]) -> None:
        openvino = _openvino()
        core = openvino.Core()
        file = cached_file(
            network.eval(),
            size,
            core.get_property("CPU", "FULL_DEVICE_NAME"),
            openvino.__version__,
            suffix=".blob",
        )
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        compiled, self._content = _read(core, file, settings)
        if compiled is None:
            logger.info("compiling the network for OpenVINO; this takes up to a minute, once")
            compiled = core.compile_model(_convert(network, size), "CPU", settings)
            content = compiled.export_model()
            write_once(file, lambda part: _write(part, content))
        self._request = compiled.create_infer_request()

    def logits(self, images: Tensor) -> Tensor:
        """Return `(N, C, h, w)` logits of `(N, 3, h, w)` float32 images, one after another."""
        found = [self._request.infer([image[None].numpy()])[0].copy() for image in images]
        return torch.from_numpy(np.concatenate(found))


def _openvino() -> Any:
    """Import OpenVINO without its telemetry package, which reports usage to Intel."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino  # noqa: PLC0415 - an optional package
    except ImportError as error:
        raise ConfigError(
            "runtime 'openvino': OpenVINO is not installed; `pip install sam2unet[openvino]`, "
            "or use auto"
        ) from error
    return openvino


def _read(core: Any, file: Path, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Return the compiled network from the cache and its memory-mapped file; else None and None.

    The file must stay mapped as long as the network is used.
    """
    if not file.is_file():
        return None, None
    try:
        # Copy-on-write, because OpenVINO accepts only writable memory.
        content = _openvino().Tensor(np.memmap(file, np.uint8, mode="c"), shared_memory=True)
        return core.import_model(content, "CPU", settings), content
    except (RuntimeError, ValueError) as error:  # damaged, or empty
        logger.info("the compiled network in the cache cannot be used (%s)", error)
        return None, None


def _convert(network: nn.Module, size: tuple[int, int]) -> Any:
    """Return OpenVINO's model for one image."""
    shape = (1, 3, *size)
    with warnings.catch_warnings():  # tracing warns about the checks of the image's shape
        warnings.simplefilter("ignore")
        return _openvino().convert_model(network, input=shape, example_input=torch.zeros(shape))


def _write(path: Path, content: Any) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.getvalue())
