"""Video files and streams, decoded frame by frame with PyAV (extra `video`)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.errors import InputError, MissingExtraError
from sam2unet_core.task import Window
from sam2unet_core.types import Frame, Instance, OnError, Series, Skipped

if TYPE_CHECKING:
    from pydicom import Dataset

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".ts"}
)
_BARE = {"h264": "h264", "hevc": "hevc", "mpeg": "mpegvideo"}
"""FFmpeg's readers of a stream without a container."""
_HD_HEIGHT, _HD_WIDTH = 577, 1025
"""From these sizes on, video that does not state its colour matrix is ITU-R BT.709, else BT.601."""


@dataclass(frozen=True)
class Picture:
    """One decoded frame.

    Attributes:
        pixels: `(H, W, 3)` uint8 RGB, upright.
        index: 0-based, in the order of display.
        time_s: seconds from the first frame; None for a bare stream, which has no clock.
    """

    pixels: NDArray[np.uint8]
    index: int
    time_s: float | None


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds: size of its upright frames, their count and their mean rate per second.

    `missing` counts frames that the file announces and does not hold.
    """

    rows: int
    columns: int
    frames: int
    frames_per_second: float | None
    missing: int = 0


def video_series(path: Path, *, source_path: Path, relative: str) -> Series | Skipped:
    """Describe a video file, which is read through once to count its frames.

    A file that cannot be opened comes back as skipped.
    """
    try:
        info = probe(path)
    except (InputError, MissingExtraError) as error:
        reason = getattr(error, "reason", "unsupported_transfer_syntax")
        return Skipped(path, reason, f"{path.name}: {error}", relative)
    return Series(
        kind="video",
        instances=(Instance(path, frames=info.frames),),
        source=VideoSource(),
        source_path=source_path,
        relative=relative,
        rows=info.rows,
        columns=info.columns,
        frame_count=info.frames,
        frames_per_second=info.frames_per_second,
        warnings=(f"{info.missing} frames that the file announces are missing",)
        if info.missing
        else (),
    )


class VideoSource:
    """Reads the frames of a video file."""

    def frames(
        self, series: Series, *, window: Window | None, stride: int, on_error: OnError | None
    ) -> Iterator[Frame]:
        """Yield every `stride`-th frame; the grey window does not apply to video."""
        path = series.instances[0].path
        try:
            done = 0
            for picture in pictures(path, stride=stride):
                yield Frame(picture.pixels, picture.index, 0, picture.index + 1, picture.time_s)
                done += 1
            wanted = len(range(0, series.frame_count, stride))
            if done < wanted:
                raise InputError(f"only {done} of {wanted} frames decode", reason="corrupt")
        except (InputError, MissingExtraError) as error:
            reason = getattr(error, "reason", "unsupported_transfer_syntax")
            named = InputError(f"{path.name}: {error}", reason=reason)
            if on_error is None:
                raise named from error
            on_error(0, named)

    def dataset(self, series: Series, instance_index: int) -> Dataset | None:
        """Return None: a video file has no DICOM header."""
        return None


def probe(source: Path | BinaryIO, *, bare: str | None = None) -> VideoInfo:
    """Count frames without decoding them; see `pictures` for the arguments.

    Raises:
        InputError: no video that can be read.
        MissingExtraError: PyAV is not installed.
    """
    av = _library()
    with _open(av, source, bare) as container:
        stream = container.streams.video[0]
        announced = int(stream.frames or 0)
        packets = shown = 0
        rotation = 0
        try:
            for packet in container.demux(stream):
                packets += bool(packet.size)
                shown += bool(packet.size) and not packet.is_discard
        except av.FFmpegError as error:
            raise InputError(_reason(error), reason="corrupt") from error
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        rows, columns = int(stream.height), int(stream.width)
    if not rows or not columns or not shown:
        raise InputError("holds no video frames that can be read", reason="corrupt")
    rotation = _rotation(av, source, bare)
    if rotation % 180:
        rows, columns = columns, rows
    return VideoInfo(
        rows, columns, shown, float(rate) if rate else None, max(0, announced - packets)
    )


def pictures(
    source: Path | BinaryIO, *, stride: int = 1, bare: str | None = None
) -> Iterator[Picture]:
    """Decode a video one frame at a time, in the order of display.

    Colours go through the matrix and range that the stream states; where it states none, BT.709
    for HD and BT.601 below, in video range. A rotation that a camera noted is applied.

    Args:
        source: a file, or a stream that can be read and sought.
        stride: take every so-manyth frame, from the first.
        bare: `mpeg`, `h264` or `hevc`: what the stream is if it has no container.

    Raises:
        InputError: the stream cannot be decoded.
        MissingExtraError: PyAV is not installed.
    """
    av = _library()
    with _open(av, source, bare) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        start: Fraction | None = None
        try:
            for index, frame in enumerate(container.decode(stream)):
                time = None if frame.pts is None else frame.pts * frame.time_base
                start = time if start is None else start
                if index % stride == 0:
                    elapsed = None if time is None or start is None else float(time - start)
                    yield Picture(_rgb(frame), index, elapsed)
        except av.FFmpegError as error:
            raise InputError(_reason(error), reason="corrupt") from error


def _library() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise MissingExtraError(
            "video needs PyAV, which is not installed: pip install 'sam2unet[video]'"
        ) from error


def _open(av: Any, source: Path | BinaryIO, bare: str | None) -> Any:
    """Open a container; a stream that none is found for is read as a bare one."""
    attempts = [None] if bare is None else [None, _BARE[bare]]
    failure: Exception | None = None
    for form in attempts:
        if not isinstance(source, Path):
            source.seek(0)
        try:
            container = av.open(str(source) if isinstance(source, Path) else source, format=form)
        except (av.FFmpegError, ValueError) as error:
            failure = error
            continue
        if container.streams.video and container.streams.video[0].codec_context is not None:
            return container
        container.close()
    raise InputError(
        f"no video that can be read ({_reason(failure) if failure else 'no video stream'})",
        reason="corrupt",
    )


def _rotation(av: Any, source: Path | BinaryIO, bare: str | None) -> int:
    with _open(av, source, bare) as container:
        try:
            for frame in container.decode(video=0):
                return int(getattr(frame, "rotation", 0) or 0)
        except av.FFmpegError as error:
            raise InputError(_reason(error), reason="corrupt") from error
    raise InputError("holds no video frames that decode", reason="corrupt")


def _rgb(frame: Any) -> NDArray[np.uint8]:
    from av.video.reformatter import ColorRange, Colorspace  # noqa: PLC0415 - the extra `video`

    full_range = frame.format.name.startswith("yuvj") or frame.color_range == ColorRange.JPEG
    stated = {int(each): each for each in Colorspace}
    large = frame.height >= _HD_HEIGHT or frame.width >= _HD_WIDTH
    matrix = stated.get(int(frame.colorspace), Colorspace.ITU709 if large else Colorspace.ITU601)
    shown = frame.reformat(
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    pixels: NDArray[np.uint8] = shown.to_ndarray()
    turns = round(int(getattr(frame, "rotation", 0) or 0) / 90)
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns % 4 else pixels


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or type(error).__name__
    return f"the video cannot be decoded: {text}"
