"""Describes weights files without building a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sam2unet_core.files import file_sha256
from sam2unet_core.network.checkpoint.formats import Format, read_checkpoint
from sam2unet_core.network.keys import trunk_hash
from sam2unet_core.task import Task


@dataclass(frozen=True)
class WeightsInfo:
    """Description of a weights file.

    Attributes:
        format: the format of the file.
        variant: name of the network's variant; None if the weights fit none.
        num_classes: output channels; None for a trunk alone.
        trunk_sha256: hash of the trunk that the file holds or needs; None if unknown.
        has_trunk: whether the file holds the trunk.
        has_decoder: whether the file holds adapters and decoder.
        task: the task it was trained for, if it is stored in the file.
        parameters: number of values of this network in the file, including buffers.
        sha256: hash of the file.
        size: bytes of the file.
    """

    path: Path
    format: Format
    variant: str | None
    num_classes: int | None
    trunk_sha256: str | None
    has_trunk: bool
    has_decoder: bool
    task: Task | None
    parameters: int
    sha256: str
    size: int

    @property
    def is_delta(self) -> bool:
        """Whether the file needs a separate trunk."""
        return not self.has_trunk


def read_info(path: Path | str) -> WeightsInfo:
    """Describe a weights file of any format.

    Raises:
        WeightsError: the file cannot be read or is of no known format.
    """
    checkpoint = read_checkpoint(path)
    has_trunk = checkpoint.has_trunk
    return WeightsInfo(
        path=checkpoint.path,
        format=checkpoint.format,
        variant=checkpoint.variant.name if checkpoint.variant else None,
        num_classes=checkpoint.num_classes,
        trunk_sha256=trunk_hash(checkpoint.tensors) if has_trunk else checkpoint.trunk_sha256,
        has_trunk=has_trunk,
        has_decoder=checkpoint.has_decoder,
        task=checkpoint.task,
        parameters=sum(tensor.numel() for tensor in checkpoint.tensors.values()),
        sha256=file_sha256(checkpoint.path),
        size=checkpoint.path.stat().st_size,
    )
