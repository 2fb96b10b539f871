"""Video files and streams, decoded frame by frame with PyAV (extra `video`)."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.errors import InputError, MissingExtraError, Reason
from sam2unet_core.media.recordings import PartOfFile, recordings
from sam2unet_core.task import Window
from sam2unet_core.types import Caution, Frame, Indices, Instance, Kind, OnError, Series, Skipped

if TYPE_CHECKING:
    from pydicom import Dataset

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".avi", ".divx", ".mkv", ".webm", ".wmv"}
    | {".asf", ".flv", ".f4v", ".mxf", ".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob", ".mod"}
    | {".ts", ".mts", ".m2ts", ".m2t", ".ogv", ".dv", ".y4m", ".h264", ".264", ".h265", ".265"}
    | {".hevc"}
)
_ELEMENTARY = {"h264": "h264", "hevc": "hevc", "mpeg": "mpegvideo"}
"""FFmpeg demuxers of elementary streams, by codec."""
_HD_HEIGHT, _HD_WIDTH = 577, 1025
"""Minimum size at which video without a stated colour matrix is ITU-R BT.709, not BT.601."""

_STATE_DURATION = frozenset({"matroska", "flv", "asf", "mxf"})
"""Containers that state their duration instead of the number of frames."""
_MAY_HOLD_FIELDS = frozenset({"mpegts", "mpeg", "h264", "mpegvideo"})
"""Formats whose packets may hold one field each."""
_COVER = 0x400
"""FFmpeg's disposition `attached_pic`: a cover picture."""
_OVERLAP_S = Fraction(1, 2)
_RESTARTED = Caution(
    "clock_restarted", "the video's clock restarts, as in recordings joined end to end"
)
_CONCEALED = Caution("pixels_concealed", "the decoder filled in damaged parts of the picture")
_BUILT_ON_DAMAGE = Caution("pixels_concealed", "the picture depends on an earlier damaged one")


@dataclass(frozen=True)
class DecodedFrame:
    """One decoded frame.

    Attributes:
        pixels: `(H, W, 3)` uint8 RGB, upright.
        index: 0-based, in display order.
        time_s: seconds from the first frame; None for elementary streams, which have no clock.
        cautions: concealed damage, a clock that restarts.
    """

    pixels: NDArray[np.uint8]
    index: int
    time_s: float | None
    cautions: tuple[Caution, ...] = ()


@dataclass(frozen=True)
class _Recording:
    """Number and mean rate of the packets of one recording.

    `may_hold_fields`: in interlaced video a packet may hold one field of a frame.
    """

    frames: int
    frames_per_second: float | None
    cautions: tuple[Caution, ...]
    may_hold_fields: bool = False


@dataclass(frozen=True)
class VideoInfo:
    """Size of the upright frames of a video, their number and mean rate.

    `cautions` report a stated number of frames or duration that differs.
    """

    rows: int
    columns: int
    frames: int
    frames_per_second: float | None
    cautions: tuple[Caution, ...] = ()


def video_series(path: Path, *, source_path: Path, relative: str) -> Series | Skipped:
    """Describe a video file; it is read once to count its frames."""
    try:
        info = probe(path)
    except (InputError, MissingExtraError, OSError) as error:
        reason = getattr(error, "reason", Reason.UNSUPPORTED_TRANSFER_SYNTAX)
        reason = Reason.CORRUPT if isinstance(error, OSError) else reason
        return Skipped(path, reason, f"{path.name}: {_text(error)}", relative)
    return Series(
        kind=Kind.VIDEO,
        instances=(Instance(path, frames=info.frames, cautions=info.cautions),),
        source=VideoSource(),
        source_path=source_path,
        relative=relative,
        rows=info.rows,
        columns=info.columns,
        frame_count=info.frames,
        frames_per_second=info.frames_per_second,
    )


class VideoSource:
    """Reads the frames of a video file."""

    def frames(
        self, series: Series, *, indices: Indices, window: Window | None, on_error: OnError | None
    ) -> Iterator[Frame]:
        """Yield frames; those of another size are skipped and reported at the end."""
        path = series.instances[0].path
        try:
            shape = (series.rows, series.columns, 3)
            done, skipped, first = 0, 0, None
            for picture in pictures(path, indices=indices):
                done += 1
                if picture.pixels.shape == shape:
                    yield _frame(picture)
                else:
                    skipped, first = skipped + 1, first or _other_size(picture, series)
            if skipped:
                message = f"{skipped} frames were skipped: {first}"
                raise InputError(message, reason=Reason.INCONSISTENT_GEOMETRY)
            wanted = series.frame_count if indices is None else len(indices)
            if done < wanted:
                message = f"only {done} of {wanted} frames can be decoded"
                raise InputError(message, reason=Reason.CORRUPT)
        except (InputError, MissingExtraError, OSError) as error:
            reason = getattr(error, "reason", Reason.UNSUPPORTED_TRANSFER_SYNTAX)
            reason = Reason.CORRUPT if isinstance(error, OSError) else reason
            named = InputError(f"{path.name}: {_text(error)}", reason=reason)
            if on_error is None:
                raise named from error
            on_error(0, named)

    def dataset(self, series: Series, instance_index: int) -> Dataset | None:
        """Return None: a video file has no DICOM header."""
        return None


def probe(source: Path | BinaryIO, *, bare: str | None = None) -> VideoInfo:
    """Count frames; see `pictures` for the arguments.

    Only interlaced MPEG streams are decoded for this, since their packets may hold half a frame.

    Raises:
        InputError: not a supported video.
        MissingExtraError: PyAV is not installed.
    """
    av = load_av()
    found = []
    for part in _parts(source):
        with _opened(av, part, bare) as container:
            found.append(_count(av, container))
    if not found[0].frames:
        raise InputError("no readable video frames", reason=Reason.CORRUPT)
    rows, columns, interlaced = _first_picture(av, source, bare)
    frames = sum(each.frames for each in found)
    if interlaced and all(each.may_hold_fields for each in found):
        frames = sum(1 for part in _parts(source) for _ in _decoded(av, part, bare))
    return VideoInfo(
        rows,
        columns,
        frames,
        found[0].frames_per_second,
        tuple(caution for each in found for caution in each.cautions),
    )


def pictures(
    source: Path | BinaryIO, *, indices: Indices = None, bare: str | None = None
) -> Iterator[DecodedFrame]:
    """Decode a video one frame at a time, in display order.

    Colours are converted by the matrix and range that the stream states; by default BT.709 for HD
    and BT.601 below, in video range. The rotation in the metadata is applied. Recordings joined end
    to end are one video; times continue where a clock restarts.

    Args:
        source: a file, or a seekable stream.
        indices: frames to yield; decoding ends after the last of them.
        bare: codec of an elementary stream without container: `mpeg`, `h264` or `hevc`.

    Raises:
        InputError: the stream cannot be decoded.
        MissingExtraError: PyAV is not installed.
    """
    av = load_av()
    clock, damage, pending = Clock(), Damage(), dict[Caution, None]()
    index, wanted = 0, itertools.count() if indices is None else iter(indices)
    following = next(wanted, None)
    for number, part in enumerate(_parts(source)):
        if number:
            clock.restart()
        for frame in _decoded(av, part, bare):
            time_s, restarted = clock.time_of(frame)
            pending.update(dict.fromkeys(restarted))
            cautions = damage.of(frame)
            if index == following:
                yield DecodedFrame(_rgb(frame), index, time_s, (*pending, *cautions))
                pending.clear()
                following = next(wanted, None)
                if following is None:
                    return
            index += 1


def _decoded(av: Any, source: Path | BinaryIO, bare: str | None) -> Iterator[Any]:
    with _opened(av, source, bare) as container:
        stream = _video_stream(container)
        stream.thread_type = "AUTO"
        try:
            yield from container.decode(stream)
        except av.FFmpegError as error:
            raise InputError(_reason(error), reason=Reason.CORRUPT) from error


class Clock:
    """Increasing frame times from the possibly restarting clock of a stream."""

    def __init__(self) -> None:
        self._first: Fraction | None = None  # start of the recording, by its own clock
        self._began = Fraction(0)  # start of the recording, by our clock
        self._own: Fraction | None = None  # time of the last frame, by its own clock
        self._last: Fraction | None = None  # and by our clock
        self._step = Fraction(1, 25)

    def restart(self) -> None:
        """Start another recording."""
        self._own = None

    def time_of(self, frame: Any) -> tuple[float | None, tuple[Caution, ...]]:
        """Return seconds from the first frame, and a caution if the clock restarts."""
        if frame.pts is None or frame.time_base is None:
            return None, ()
        own = Fraction(frame.pts * frame.time_base)
        again = self._last is not None and (self._own is None or self._goes_back(own, self._own))
        if self._first is None or again:
            self._began = Fraction(0) if self._last is None else self._last + self._step
            self._first = own
        elif self._own is not None and own > self._own:
            self._step = own - self._own
        time = self._began + own - self._first
        if self._last is not None and time <= self._last:  # equal times: move one slightly
            time = self._last + self._step / 16
        self._own, self._last = own, time
        return float(time), (_RESTARTED,) if again else ()

    def _goes_back(self, own: Fraction, before: Fraction) -> bool:
        """Whether a clock went back to its start, or by more than frames may overlap."""
        began = self._first is not None and own <= self._first + self._step
        return before - own > (self._step if began else _OVERLAP_S)


class Damage:
    """Tracks frames that the decoder marks as damaged, and those that depend on them."""

    def __init__(self) -> None:
        self._since_damage = False

    def of(self, frame: Any) -> tuple[Caution, ...]:
        """Return the cautions of the next frame in display order."""
        if getattr(frame, "is_corrupt", False):
            self._since_damage = True
            return (_CONCEALED,)
        self._since_damage = self._since_damage and not frame.key_frame
        return (_BUILT_ON_DAMAGE,) if self._since_damage else ()


def _frame(picture: DecodedFrame) -> Frame:
    index = picture.index
    return Frame(picture.pixels, index, 0, index + 1, picture.time_s, picture.cautions)


def _other_size(picture: DecodedFrame, series: Series) -> str:
    height, width = picture.pixels.shape[:2]
    return (
        f"frame {picture.index + 1} has another size ({width} x {height}) than the first "
        f"({series.columns} x {series.rows}); split the video where the size changes"
    )


def _parts(source: Path | BinaryIO) -> list[Path | BinaryIO]:
    """Return what to open in sequence: the file itself, or the recordings in it."""
    if not isinstance(source, Path):
        return [source]
    found = recordings(source)
    if len(found) == 1:
        return [source]
    return [cast("BinaryIO", PartOfFile(source, *place)) for place in found]


def _count(av: Any, container: Any) -> _Recording:
    """Count the frames of a recording."""
    stream = _video_stream(container)
    packets = shown = 0
    first: Fraction | None = None
    end = Fraction(0)
    try:
        for packet in container.demux(stream):
            packets += bool(packet.size)
            shown += bool(packet.size) and not packet.is_discard
            if packet.size and packet.pts is not None:
                begin = Fraction(packet.pts * packet.time_base)
                first = begin if first is None else min(first, begin)
                end = max(end, begin + (packet.duration or 0) * packet.time_base)
    except av.FFmpegError as error:
        raise InputError(_reason(error), reason=Reason.CORRUPT) from error
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    duration = None if first is None else float(end - first)
    cautions = _check_stated(container, stream, packets, duration)
    fields = container.format.name in _MAY_HOLD_FIELDS
    return _Recording(shown, float(rate) if rate else None, cautions, fields)


def _check_stated(
    container: Any, stream: Any, packets: int, duration: float | None
) -> tuple[Caution, ...]:
    """Compare the stated number of frames, or duration, with the actual one."""
    announced = int(stream.frames or 0)
    if announced and announced != packets:
        message = f"the file states {announced} frames and holds {packets}"
        return (Caution("frame_count_differs", message),)
    states_time = set(container.format.name.split(",")) & _STATE_DURATION
    if announced or duration is None or not states_time or not container.duration:
        return ()
    stated = container.duration / 1_000_000
    alone = len(container.streams) == 1  # another stream may be longer
    if stated - duration <= (0.2 if alone else max(1.0, stated / 20)):
        return ()
    message = f"the file states {stated:.1f} s and holds {duration:.1f} s of video"
    return (Caution("frame_count_differs", message),)


def load_av() -> Any:
    """Return PyAV; raise MissingExtraError if it is not installed."""
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise MissingExtraError(
            "video needs PyAV, which is not installed: pip install 'sam2unet[video]'"
        ) from error


@contextmanager
def _opened(av: Any, source: Path | BinaryIO, bare: str | None) -> Iterator[Any]:
    """Open a container, or `bare` as an elementary stream."""
    with ExitStack() as stack:
        stream: str | BinaryIO
        if not isinstance(source, Path):
            stream = source
        elif not source.stat().st_size:
            raise InputError("the file is empty", reason=Reason.TRUNCATED)
        else:
            stream = _ffmpeg_name(source) or stack.enter_context(source.open("rb"))
        yield stack.enter_context(_container(av, stream, bare))


def _ffmpeg_name(path: Path) -> str | None:
    """Return the path as text, or None if it is not UTF-8, which FFmpeg requires."""
    try:
        return str(path) if str(path).encode() else None
    except UnicodeEncodeError:
        return None


def _container(av: Any, stream: str | BinaryIO, bare: str | None) -> Any:
    attempts = [None] if bare is None else [None, _ELEMENTARY[bare]]
    failure: Exception | None = None
    for form in attempts:
        if not isinstance(stream, str):
            stream.seek(0)
        try:
            container = av.open(stream, format=form)
        except (av.FFmpegError, ValueError) as error:
            failure = error
            continue
        found = _video_stream(container)
        if found is not None and found.codec_context is not None:
            return container
        container.close()
    raise InputError(
        f"not a supported video ({_reason(failure) if failure else 'no video stream'})",
        reason=Reason.CORRUPT if failure else Reason.NOT_AN_IMAGE,
    )


def _video_stream(container: Any) -> Any:
    """Return the first video stream that is not a cover picture, or None."""
    shown = (s for s in container.streams.video if not int(s.disposition) & _COVER)
    return next(shown, None)


def _first_picture(av: Any, source: Path | BinaryIO, bare: str | None) -> tuple[int, int, bool]:
    """Return rows, columns and whether it is interlaced, from the first decoded frame."""
    for frame in _decoded(av, _parts(source)[0], bare):
        rows, columns = int(frame.height), int(frame.width)
        rotated = int(getattr(frame, "rotation", 0) or 0) % 180
        size = (columns, rows) if rotated else (rows, columns)
        return (*size, bool(frame.interlaced_frame))
    raise InputError("no video frame can be decoded", reason=Reason.CORRUPT)


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


def _text(error: Exception) -> str:
    """Return the message of an error, without a path."""
    return (error.strerror or "cannot be read") if isinstance(error, OSError) else str(error)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or type(error).__name__
    return f"the video cannot be decoded: {text}"
