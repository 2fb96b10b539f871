"""What a weights file is, without building a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sam2unet_core.files import file_sha256
from sam2unet_core.network.checkpoint.formats import Format, read_checkpoint
from sam2unet_core.network.keys import trunk_hash
from sam2unet_core.task import Task


@dataclass(frozen=True)
class WeightsInfo:
    """A weights file, described.

    Attributes:
        format: which kind of file it is.
        variant: name of the network's size; None where the weights do not tell.
        num_classes: channels of the output; None for a trunk alone.
        trunk_sha256: hash of the trunk it holds, or needs; None where the file does not say.
        has_trunk: whether the file holds the trunk.
        has_decoder: whether the file holds adapters and decoder.
        task: what it was trained for, if the file says so.
        parameters: number of values of this network in the file, buffers included.
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
        """Whether the file needs a trunk beside it."""
        return not self.has_trunk


def read_info(path: Path | str) -> WeightsInfo:
    """Describe a weights file of any kind.

    Raises:
        WeightsError: the file cannot be read or is of no known kind.
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
