"""`png`: label maps as palette PNGs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sam2unet_core.batch.formats.output_format import PictureFile, PictureFormat

if TYPE_CHECKING:
    from sam2unet_core.inference.engine import FrameResult
    from sam2unet_core.task import Task


class Png(PictureFormat):
    """One palette PNG per frame: 0 is background, k the k-th class; the palette has its colours."""

    name = "png"
    help = "label map of each frame"

    def pictures(self, result: FrameResult, task: Task) -> Iterator[PictureFile]:
        """Yield the label map."""
        from sam2unet_core.media.image import write_mask

        yield PictureFile(
            "mask.png", "mask", lambda path: write_mask(path, result.labels, task.classes)
        )
