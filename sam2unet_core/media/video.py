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
_BARE = {"h264": "h264", "hevc": "hevc", "mpeg": "mpegvideo"}
"""FFmpeg's readers of a stream without a container."""
_HD_HEIGHT, _HD_WIDTH = 577, 1025
"""From these sizes on, video that does not state its colour matrix is ITU-R BT.709, else BT.601."""

_STATE_TIME = frozenset({"matroska", "flv", "asf", "mxf"})
"""Containers that state how long they last, in place of the number of frames."""
_PACKETS_OF_FIELDS = frozenset({"mpegts", "mpeg", "h264", "mpegvideo"})
"""Streams whose packets are one field each where a camera codes the two fields apart."""
_COVER = 0x400
"""FFmpeg's mark (`attached_pic`) of a picture that lies with sound or video."""
_OVERLAP_S = Fraction(1, 2)
_RESTARTED = Caution(
    "clock_restarted", "the video's clock starts again, as in recordings joined end to end"
)
_CONCEALED = Caution("pixels_concealed", "the decoder filled in damaged parts of the picture")
_BUILT_ON_DAMAGE = Caution("pixels_concealed", "the picture is built on a damaged one before it")


@dataclass(frozen=True)
class Picture:
    """One decoded frame.

    Attributes:
        pixels: `(H, W, 3)` uint8 RGB, upright.
        index: 0-based, in the order of display.
        time_s: seconds from the first frame; None for a bare stream, which has no clock.
        cautions: damage that the decoder has concealed, a clock that starts again.
    """

    pixels: NDArray[np.uint8]
    index: int
    time_s: float | None
    cautions: tuple[Caution, ...] = ()


@dataclass(frozen=True)
class _Recording:
    """What one recording holds: its packets with frames, and their mean rate per second.

    `may_hold_fields` says that a packet of interlaced video may be every other line of a frame.
    """

    frames: int
    frames_per_second: float | None
    cautions: tuple[Caution, ...]
    may_hold_fields: bool = False


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds: size of its upright frames, their count and their mean rate per second.

    `cautions` say where the file announces another number of frames, or a longer time.
    """

    rows: int
    columns: int
    frames: int
    frames_per_second: float | None
    cautions: tuple[Caution, ...] = ()


def video_series(path: Path, *, source_path: Path, relative: str) -> Series | Skipped:
    """Describe a video file, which is read through once to count its frames.

    A file that cannot be opened comes back as skipped.
    """
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
        """Yield frames; the grey window does not apply to video.

        Frames of another size than the first are left out, and told at the end.
        """
        path = series.instances[0].path
        try:
            shape = (series.rows, series.columns, 3)
            done, others, first = 0, 0, None
            for picture in pictures(path, indices=indices):
                done += 1
                if picture.pixels.shape == shape:
                    yield _frame(picture)
                else:
                    others, first = others + 1, first or _other_size(picture, series)
            if others:
                message = f"{others} frames were left out: {first}"
                raise InputError(message, reason=Reason.INCONSISTENT_GEOMETRY)
            wanted = series.frame_count if indices is None else len(indices)
            if done < wanted:
                raise InputError(f"only {done} of {wanted} frames decode", reason=Reason.CORRUPT)
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

    They are decoded for it only in interlaced MPEG streams, where a packet may hold half of one.

    Raises:
        InputError: no video that can be read.
        MissingExtraError: PyAV is not installed.
    """
    av = _library()
    found = []
    for part in _parts(source):
        with _opened(av, part, bare) as container:
            found.append(_count(av, container))
    if not found[0].frames:
        raise InputError("holds no video frames that can be read", reason=Reason.CORRUPT)
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
) -> Iterator[Picture]:
    """Decode a video one frame at a time, in the order of display.

    Colours go through the matrix and range that the stream states; where it states none, BT.709
    for HD and BT.601 below, in video range. A rotation that a camera noted is applied. Recordings
    joined end to end are one video: times go on where a clock starts again.

    Args:
        source: a file, or a stream that can be read and sought.
        indices: which frames; decoding ends after the last of them.
        bare: `mpeg`, `h264` or `hevc`: what the stream is if it has no container.

    Raises:
        InputError: the stream cannot be decoded.
        MissingExtraError: PyAV is not installed.
    """
    av = _library()
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
                yield Picture(_rgb(frame), index, time_s, (*pending, *cautions))
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
    """Gives times that grow from frame to frame, whatever the stream's own clock does."""

    def __init__(self) -> None:
        self._first: Fraction | None = None  # of the recording, by its own clock
        self._began = Fraction(0)  # when the recording began, by ours
        self._own: Fraction | None = None  # the last frame's time by its own clock
        self._last: Fraction | None = None  # and by ours
        self._step = Fraction(1, 25)

    def restart(self) -> None:
        """Expect another recording."""
        self._own = None

    def time_of(self, frame: Any) -> tuple[float | None, tuple[Caution, ...]]:
        """Return seconds from the first frame, and a caution where the clock starts again."""
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
        if self._last is not None and time <= self._last:  # two frames at once: one a bit later
            time = self._last + self._step / 16
        self._own, self._last = own, time
        return float(time), (_RESTARTED,) if again else ()

    def _goes_back(self, own: Fraction, before: Fraction) -> bool:
        """Whether a clock went back: to where it began, or by more than its frames may overlap."""
        began = self._first is not None and own <= self._first + self._step
        return before - own > (self._step if began else _OVERLAP_S)


class Damage:
    """Notes frames that the decoder marks as damaged, and those that are built on them."""

    def __init__(self) -> None:
        self._since_damage = False

    def of(self, frame: Any) -> tuple[Caution, ...]:
        """Return what to say of a frame; frames come in the order of display."""
        if getattr(frame, "is_corrupt", False):
            self._since_damage = True
            return (_CONCEALED,)
        self._since_damage = self._since_damage and not frame.key_frame
        return (_BUILT_ON_DAMAGE,) if self._since_damage else ()


def _frame(picture: Picture) -> Frame:
    index = picture.index
    return Frame(picture.pixels, index, 0, index + 1, picture.time_s, picture.cautions)


def _other_size(picture: Picture, series: Series) -> str:
    height, width = picture.pixels.shape[:2]
    return (
        f"from frame {picture.index + 1} on they are of another size ({width} x {height}, the "
        f"first {series.columns} x {series.rows}); cut the video where the size changes"
    )


def _parts(source: Path | BinaryIO) -> list[Path | BinaryIO]:
    """Return what to open one after the other: the file itself, or the recordings in it."""
    if not isinstance(source, Path):
        return [source]
    found = recordings(source)
    if len(found) == 1:
        return [source]
    return [cast("BinaryIO", PartOfFile(source, *place)) for place in found]


def _count(av: Any, container: Any) -> _Recording:
    """Count the frames of a recording, which may be none."""
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
    lasts = None if first is None else float(end - first)
    cautions = _announced(container, stream, packets, lasts)
    fields = container.format.name in _PACKETS_OF_FIELDS
    return _Recording(shown, float(rate) if rate else None, cautions, fields)


def _announced(
    container: Any, stream: Any, packets: int, lasts: float | None
) -> tuple[Caution, ...]:
    """Compare what a file announces with what it holds."""
    announced = int(stream.frames or 0)
    if announced and announced != packets:
        message = f"the file announces {announced} frames and holds {packets}"
        return (Caution("frame_count_differs", message),)
    states_time = set(container.format.name.split(",")) & _STATE_TIME
    if announced or lasts is None or not states_time or not container.duration:
        return ()
    stated = container.duration / 1_000_000
    alone = len(container.streams) == 1  # else another stream may go on for longer
    if stated - lasts <= (0.2 if alone else max(1.0, stated / 20)):
        return ()
    message = f"the file announces {stated:.1f} s and holds video for {lasts:.1f} s"
    return (Caution("frame_count_differs", message),)


def _library() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise MissingExtraError(
            "video needs PyAV, which is not installed: pip install 'sam2unet[video]'"
        ) from error


@contextmanager
def _opened(av: Any, source: Path | BinaryIO, bare: str | None) -> Iterator[Any]:
    """Open a container; a stream that none is found for is read as a bare one."""
    with ExitStack() as stack:
        stream: str | BinaryIO
        if not isinstance(source, Path):
            stream = source
        elif not source.stat().st_size:
            raise InputError("the file is empty", reason=Reason.TRUNCATED)
        else:
            stream = _named(source) or stack.enter_context(source.open("rb"))
        yield stack.enter_context(_container(av, stream, bare))


def _named(path: Path) -> str | None:
    """Return a name that FFmpeg takes, or None where it is no UTF-8."""
    try:
        return str(path) if str(path).encode() else None
    except UnicodeEncodeError:
        return None


def _container(av: Any, stream: str | BinaryIO, bare: str | None) -> Any:
    attempts = [None] if bare is None else [None, _BARE[bare]]
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
        f"no video that can be read ({_reason(failure) if failure else 'no video stream'})",
        reason=Reason.CORRUPT if failure else Reason.NOT_AN_IMAGE,
    )


def _video_stream(container: Any) -> Any:
    """Return the first video that is no picture on the cover; None where there is none."""
    shown = (s for s in container.streams.video if not int(s.disposition) & _COVER)
    return next(shown, None)


def _first_picture(av: Any, source: Path | BinaryIO, bare: str | None) -> tuple[int, int, bool]:
    """Return rows, columns and whether it is interlaced, whatever the container says."""
    for frame in _decoded(av, _parts(source)[0], bare):
        rows, columns = int(frame.height), int(frame.width)
        turned = int(getattr(frame, "rotation", 0) or 0) % 180
        size = (columns, rows) if turned else (rows, columns)
        return (*size, bool(frame.interlaced_frame))
    raise InputError("holds no video frames that decode", reason=Reason.CORRUPT)


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
    """Return what an error says, without a path."""
    return (error.strerror or "cannot be read") if isinstance(error, OSError) else str(error)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or type(error).__name__
    return f"the video cannot be decoded: {text}"
