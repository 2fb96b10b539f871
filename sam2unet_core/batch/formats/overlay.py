"""`overlay`: results drawn over the frames."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from sam2unet_core.batch.formats.output_format import PictureFile, PictureFormat, Sink
from sam2unet_core.batch.outputs import Target, UnitWork

if TYPE_CHECKING:
    from sam2unet_core.inference.engine import FrameResult
    from sam2unet_core.task import Task


class Overlay(PictureFormat):
    """An annotated video of a moving source; otherwise one PNG per frame."""

    name = "overlay"
    help = "results drawn over the frames, as pictures or video"

    def pictures(self, result: FrameResult, task: Task) -> Iterator[PictureFile]:
        """Yield the frame with the classes drawn over it."""
        from sam2unet_core.media.image import overlay, write_image

        drawn = overlay(result.frame.pixels, result.labels, task.classes)
        yield PictureFile("overlay.png", "overlay", lambda path: write_image(path, drawn))

    def open(self, work: UnitWork, stack: ExitStack) -> Sink:
        """Return the sink that writes the video, or pictures if PyAV is not installed."""
        if not work.unit.moving or importlib.util.find_spec("av") is None:
            return super().open(work, stack)
        from sam2unet_core.media.video_writer import AnnotatedVideoWriter

        path = work.staging.file(Target(f"{work.unit.base}.overlay.mp4", "overlay"))
        forced = "; forced on an unsuitable source" if work.settings.force_task else ""
        task = work.model.task
        caption = f"{task.title}: research only{forced}"
        writer = stack.enter_context(
            AnnotatedVideoWriter(path, work.unit.series, task=task, caption=caption)
        )
        return lambda result: writer.add(result.frame, result.labels)
