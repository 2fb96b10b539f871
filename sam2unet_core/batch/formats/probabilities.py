"""`probabilities`: class probabilities as 16-bit PNGs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from sam2unet_core.batch.formats.output_format import PictureFile, PictureFormat

if TYPE_CHECKING:
    from sam2unet_core.inference.engine import FrameResult
    from sam2unet_core.task import Task


class Probabilities(PictureFormat):
    """One 16-bit PNG per frame and class: 0 to 65535 for probabilities from 0 to 1."""

    name = "probabilities"
    help = "16-bit PNG of each frame and class"

    def pictures(self, result: FrameResult, task: Task) -> Iterator[PictureFile]:
        """Yield one map per class."""
        from sam2unet_core.media.image import write_probability

        for value, channel in enumerate(result.probabilities, start=1):
            write = partial(write_probability, probability=channel)
            yield PictureFile(f"prob{value}.png", "probability", write)
