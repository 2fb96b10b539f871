"""Annotated video: mp4 with the classes drawn over the frames (extra `video`)."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.errors import DataError
from sam2unet_core.files import FileWriter
from sam2unet_core.media.image import captioned, overlay
from sam2unet_core.media.video import load_av
from sam2unet_core.task import Task
from sam2unet_core.types import Frame, Series

_TICKS = 90_000
"""Time base per second; divisible by 24, 25, 30, 50, 60 and 30/1.001 frames per second."""
_RATE = 25.0
"""Frames per second if the source has no clock."""
_ENCODER = {"crf": "20", "preset": "veryfast", "threads": "2", "flags": "+bitexact"}
_CONTAINER = {"movflags": "+faststart", "fflags": "+bitexact"}


class AnnotatedVideoWriter(FileWriter):
    """Writes one mp4 (H.264, BT.709, no sound) for a series, frame by frame.

    Each frame keeps its time, so a stride does not speed up the video. Odd sizes are padded to even
    ones, which H.264 in 4:2:0 requires.

    Args:
        path: the file; its folder exists.
        series: the source.
        task: gives classes and colours.
        caption: text at the bottom of each frame, or empty.

    Raises:
        MissingExtraError: PyAV is not installed.
        DataError: frames out of order, or no frame at all.
    """

    def __init__(self, path: Path, series: Series, *, task: Task, caption: str = "") -> None:
        super().__init__(path)
        self._av = load_av()
        self._series = series
        self._task = task
        self._caption = caption
        self._last = -1
        rate = series.frames_per_second or _RATE
        self._rate = Fraction(rate).limit_denominator(1001)
        self._container = self._av.open(str(self._temporary), "w", format="mp4", options=_CONTAINER)
        self._stream = self._open_stream()

    def add(self, frame: Frame, labels: NDArray[np.uint8]) -> None:
        """Add one frame and its label map, `(H, W)` uint8: 0 background, k class k."""
        drawn = overlay(frame.pixels, labels, self._task.classes)
        if self._caption:
            drawn = captioned(drawn, self._caption)
        time_s = frame.index / self._rate if frame.time_s is None else frame.time_s
        ticks = round(time_s * _TICKS)
        if ticks <= self._last:
            raise DataError(f"frame {frame.index} is not later than the one before; sort them")
        self._last = ticks
        height, width = drawn.shape[:2]
        even = np.pad(drawn, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        shown = self._converted(picture)
        shown.pts = ticks
        shown.time_base = Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(shown))

    def _open_stream(self) -> Any:
        stream = self._container.add_stream("libx264", rate=self._rate, options=_ENCODER)
        stream.width = self._series.columns + self._series.columns % 2
        stream.height = self._series.rows + self._series.rows % 2
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, _TICKS)
        context = stream.codec_context
        context.time_base = Fraction(1, _TICKS)
        context.colorspace = context.color_primaries = context.color_trc = 1  # H.273: BT.709
        context.color_range = 1  # video range
        return stream

    def _converted(self, picture: Any) -> Any:
        from av.video.reformatter import ColorRange, Colorspace  # noqa: PLC0415 - extra `video`

        return picture.reformat(
            format="yuv420p",
            src_colorspace=Colorspace.ITU709,
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
        )

    def _finish(self, temporary: Path) -> None:
        if self._last < 0:
            raise DataError("no frame was segmented, so there is no video to write")
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def _release(self) -> None:
        self._container.close()
        super()._release()
