"""ONNX Runtime: runs the exported network on the available execution providers."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from sam2unet_core.errors import ConfigError
from sam2unet_core.inference.runtimes.runtime import Runtime, cached_file, write_once

logger = logging.getLogger(__name__)


def open_runtime(
    network: nn.Module, *, size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> Runtime:
    """Make the runtime; see `OnnxRuntime`. Device and type are not used."""
    return OnnxRuntime(network, size=size)


class OnnxRuntime(Runtime):
    """Runs a network with ONNX Runtime, in float32.

    The first start exports the network; the file is cached under a hash of weights and image size.

    Args:
        network: maps `(N, 3, h, w)` to logits `(N, C, h, w)`, in float32 on the CPU.
        size: (height, width) of its images in pixels.

    Raises:
        ConfigError: ONNX Runtime or the exporter is not installed.
    """

    name = "onnx"

    def __init__(self, network: nn.Module, *, size: tuple[int, int]) -> None:
        try:
            import onnxruntime  # noqa: PLC0415 - an optional package
            import onnxscript  # noqa: PLC0415 - the same
        except ImportError as error:
            raise ConfigError(
                "runtime 'onnx': ONNX Runtime is not installed; `pip install sam2unet[onnx]`, "
                "or use auto"
            ) from error
        versions = (torch.__version__, onnxscript.__version__)
        file = cached_file(network.eval(), size, *versions, suffix=".onnx")
        if not file.is_file():
            logger.info("exporting the network to ONNX; this takes up to a minute, once")
            write_once(file, lambda part: _export(network, size, part))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        providers = onnxruntime.get_available_providers()
        self._session = onnxruntime.InferenceSession(file, options, providers=providers)
        self._input = self._session.get_inputs()[0].name

    def logits(self, images: Tensor) -> Tensor:
        """Return `(N, C, h, w)` logits of `(N, 3, h, w)` float32 images."""
        (logits,) = self._session.run(None, {self._input: images.contiguous().numpy()})
        return torch.from_numpy(logits)


def _export(network: nn.Module, size: tuple[int, int], path: Path) -> None:
    """Export a network to ONNX, for any number of images of one size."""
    example = (torch.zeros(2, 3, *size),)  # with one image, torch.export takes 1 as a constant
    shapes = ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, example, dynamo=True, dynamic_shapes=shapes, verbose=False
        )
    if program is None:
        raise ConfigError("runtime 'onnx': the network could not be exported; use auto")
    program.save(str(path))
