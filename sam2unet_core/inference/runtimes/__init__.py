"""The runtimes: one interface, one module per library, and the table that lists them.

Nothing here imports PyTorch, so that the command line can list what there is.
"""

from __future__ import annotations

from typing import NamedTuple

from sam2unet_core.errors import ConfigError


class RuntimeEntry(NamedTuple):
    """One way to run a network."""

    help: str
    """For the command line."""
    module: str
    """Of this package; its `open_runtime` makes the runtime."""


RUNTIMES = {
    "exact": RuntimeEntry("PyTorch in 32 bits", "torch_runtime"),
    "fast": RuntimeEntry("PyTorch in 16 bits", "torch_runtime"),
    "openvino": RuntimeEntry("OpenVINO in 32 bits", "openvino_runtime"),
    "onnx": RuntimeEntry("ONNX Runtime in 32 bits", "onnx_runtime"),
}
AUTO = "auto"
"""Takes `fast` where it holds the agreed accuracy and pays, else `exact`."""
RUNTIME_NAMES = (AUTO, *RUNTIMES)


def check_runtime(name: str) -> None:
    """Refuse a name that is no runtime.

    Raises:
        ConfigError: it is none.
    """
    if name not in RUNTIME_NAMES:
        raise ConfigError(f"unknown runtime {name!r}; choose from {', '.join(RUNTIME_NAMES)}")
