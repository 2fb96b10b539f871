"""The settings of a batch run, and the hash that identifies them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sam2unet_core.batch.formats import AUTO, FORMATS
from sam2unet_core.errors import ConfigError
from sam2unet_core.inference.engine import BATCH_SIZE
from sam2unet_core.media.planes import Plane

SEG_TYPES = ("binary", "fractional", "labelmap")
Names = Literal["auto", "keep", "pseudonymize"]


@dataclass(frozen=True)
class Shard:
    """One of several runs that divide the inputs among them.

    Attributes:
        number: number of this shard, from 1 to `count`.
        count: number of shards.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse `i/n`.

        Raises:
            ConfigError: not two numbers, or i is not from 1 to n.
        """
        try:
            number, count = (int(part) for part in text.split("/"))
        except ValueError as error:
            raise ConfigError(f"--shard {text}: expected i/n, such as 1/8") from error
        if not 1 <= number <= count:
            raise ConfigError(f"--shard {text}: expected i/n with i from 1 to n")
        return cls(number, count)

    @property
    def suffix(self) -> str:
        """The suffix of this shard's own files."""
        return f".{self.number}-of-{self.count}"

    def holds(self, name: str) -> bool:
        """Return whether the input of that name belongs to this shard."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1


@dataclass(frozen=True)
class Settings:
    """What to write and how; the model has the task and the weights.

    Attributes:
        formats: names in `FORMATS`; `AUTO` stands for the default formats of each kind of input,
            and so does an empty tuple.
        stride: segment every Nth frame.
        plane: `axial`, `coronal` or `sagittal` for volumes; None for the stored frames.
        series: which series to segment, such as `modality=CT`; empty for all.
        seg_type: one of `SEG_TYPES`.
        names: `auto` keeps the names of images and pseudonymizes those of DICOM files.
        force_task: segment sources that the task does not accept, and mark the results.
        redo: segment again what is done, and replace results made with other settings.
        shard: the part of the inputs to segment; None for all.
        batch_size: frames in the network at once; on a CPU, each runs on its own core.
    """

    formats: tuple[str, ...] = ()
    stride: int = 1
    plane: Plane | None = None
    series: tuple[str, ...] = ()
    seg_type: str = "binary"
    names: Names = "auto"
    force_task: bool = False
    redo: bool = False
    shard: Shard | None = None
    batch_size: int = BATCH_SIZE

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: a value is invalid.
        """
        unknown = [name for name in self.formats if name not in (*FORMATS, AUTO)]
        if unknown:
            raise ConfigError(
                f"unknown format {unknown[0]!r}; choose from {', '.join((*FORMATS, AUTO))}"
            )
        if self.seg_type not in SEG_TYPES:
            raise ConfigError(
                f"unknown SEG type {self.seg_type!r}; choose from {', '.join(SEG_TYPES)}"
            )
        if self.plane is not None and self.plane not in get_args(Plane):
            raise ConfigError(
                f"unknown plane {self.plane!r}; choose from {', '.join(get_args(Plane))}"
            )
        if self.stride < 1 or self.batch_size < 1:
            raise ConfigError("--stride and --batch-size: expected 1 or more")

    def that_change_results(self) -> dict[str, Any]:
        """Return the settings that affect results, for run.json and the keys."""
        return {
            "formats": sorted(set(self.formats)) if set(self.formats) - {AUTO} else AUTO,
            "stride": self.stride,
            "plane": self.plane,
            "seg_type": self.seg_type,
            "names": self.names,
            "force_task": self.force_task,
        }
