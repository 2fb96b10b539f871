"""The runtimes: one interface, one module per library, and the table of all.

Nothing here imports PyTorch, so that the command line lists the runtimes quickly.
"""

from __future__ import annotations

from typing import NamedTuple

from sam2unet_core.errors import ConfigError


class RuntimeEntry(NamedTuple):
    """One way to run a network."""

    help: str
    """Description for the command line."""
    module: str
    """Module of this package with `open_runtime`."""


RUNTIMES = {
    "exact": RuntimeEntry("PyTorch in 32 bits", "torch_runtime"),
    "fast": RuntimeEntry("PyTorch in 16 bits", "torch_runtime"),
    "openvino": RuntimeEntry("OpenVINO in 32 bits", "openvino_runtime"),
    "onnx": RuntimeEntry("ONNX Runtime in 32 bits", "onnx_runtime"),
}
AUTO = "auto"
"""Chooses `fast` where it is faster and accurate enough, else `exact`."""
RUNTIME_NAMES = (AUTO, *RUNTIMES)


def check_runtime(name: str) -> None:
    """Check the name of a runtime.

    Raises:
        ConfigError: there is no such runtime.
    """
    if name not in RUNTIME_NAMES:
        raise ConfigError(f"unknown runtime {name!r}; choose from {', '.join(RUNTIME_NAMES)}")
