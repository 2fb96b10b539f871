"""The annotated video: right colours, right frames, right times, for players other than ours."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sam2unet_core.errors import DataError, MissingExtraError
from sam2unet_core.media.video_writer import AnnotatedVideoWriter
from sam2unet_core.task import Task
from sam2unet_core.types import Frame, Series

av = pytest.importorskip("av", reason="needs PyAV: pip install 'sam2unet[video]'")
Make = Callable[..., Series]
Write = Callable[..., Path]


@pytest.fixture
def video(make_series: Make) -> Series:
    """A series of 64 x 96 pixels at 30/1.001 frames a second."""
    return replace(
        make_series("endoscopy_video"), rows=64, columns=96, frames_per_second=30 / 1.001
    )


@pytest.fixture
def write_video(one_class: Task, tmp_path: Path) -> Write:
    def write(series: Series, frames: list[Frame], *, name: str = "out.mp4") -> Path:
        path = tmp_path / name
        with AnnotatedVideoWriter(path, series, task=one_class) as writer:
            for frame in frames:
                labels = np.zeros(frame.pixels.shape[:2], np.uint8)
                labels[16:48, 64:90] = frame.index % 2
                writer.add(frame, labels)
        return path

    return write


def flat(index: int, colour: tuple[int, int, int], *, size: tuple[int, int] = (64, 96)) -> Frame:
    pixels = np.broadcast_to(np.array(colour, np.uint8), (*size, 3)).copy()
    return Frame(pixels, index, 0, index + 1, index * 1.001 / 30)


def decoded(path: Path) -> list[tuple[NDArray[np.float64], float]]:
    """Luma and chroma planes' means turned into RGB by the formulas of BT.709, and the time."""
    found = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            planes = [
                np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
                for plane in frame.planes
            ]
            y = (planes[0][8:48, 8:48].mean() - 16) / 219
            cb, cr = ((plane[4:24, 4:24].mean() - 128) / 224 for plane in planes[1:3])
            red, blue = y + 1.5748 * cr, y + 1.8556 * cb
            green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152
            found.append((255 * np.array([red, green, blue]), frame.time))
    return found


def test_colours_are_those_of_bt709_in_video_range(video: Series, write_video: Write) -> None:
    colours = [(200, 30, 40), (30, 190, 60), (40, 50, 210), (128, 128, 128), (250, 250, 250)]
    path = write_video(video, [flat(index, colour) for index, colour in enumerate(colours)])
    for (got, _), colour in zip(decoded(path), colours, strict=True):
        np.testing.assert_allclose(got, colour, atol=4)
    program = shutil.which("ffprobe")
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (1, 1)
    if program:
        said = subprocess.run(
            [program, "-show_streams", "-of", "json", path], capture_output=True, check=True
        )
        assert json.loads(said.stdout)["streams"][0]["color_space"] == "bt709"


def test_every_frame_is_there_at_its_own_time(video: Series, write_video: Write) -> None:
    frames = [flat(index, (20 * index + 20,) * 3) for index in range(9)]
    got = decoded(write_video(video, frames))
    assert [round(float(pixels[0])) for pixels, _ in got] == pytest.approx(
        [20 * index + 20 for index in range(9)], abs=3
    )
    assert [time for _, time in got] == pytest.approx([n * 1.001 / 30 for n in range(9)], abs=1e-4)


def test_a_stride_keeps_the_pace(video: Series, write_video: Write) -> None:
    got = decoded(write_video(video, [flat(index, (90, 90, 90)) for index in (0, 3, 6)]))
    assert [time for _, time in got] == pytest.approx([0, 3.003 / 30, 6.006 / 30], abs=1e-4)


def test_frames_without_a_clock_follow_the_rate(video: Series, write_video: Write) -> None:
    frames = [replace(flat(index, (90, 90, 90)), time_s=None) for index in range(3)]
    got = decoded(write_video(replace(video, frames_per_second=10.0), frames))
    assert [time for _, time in got] == pytest.approx([0, 0.1, 0.2])


def test_the_drawing_is_on_the_frame_it_belongs_to(video: Series, write_video: Write) -> None:
    path = write_video(video, [flat(index, (60, 60, 60)) for index in range(4)])
    with av.open(str(path)) as container:
        reds = [f.to_ndarray(format="rgb24")[16:48, 64:90, 0] for f in container.decode(video=0)]
    # the class is orange (230, 159, 0), its inside drawn at 0.3: 0.7 * 60 + 0.3 * 230 = 111
    assert [bool(red.mean() > 95) for red in reds] == [False, True, False, True]
    assert float(reds[1][8:24, 8:18].mean()) == pytest.approx(111, abs=6)


def test_odd_sizes_are_completed(video: Series, write_video: Write) -> None:
    odd = replace(video, rows=63, columns=95)
    path = write_video(odd, [flat(0, (90, 60, 60), size=(63, 95))])
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.height, frame.width) == (64, 96)
        last = frame.to_ndarray(format="rgb24")[-1, -1].astype(int)
    np.testing.assert_allclose(last, (90, 60, 60), atol=8)


def test_the_same_frames_give_the_same_bytes(video: Series, write_video: Write) -> None:
    frames = [flat(index, (30 * index, 90, 60)) for index in range(5)]
    first, again = (write_video(video, frames, name=name) for name in ("a.mp4", "b.mp4"))
    assert first.read_bytes() == again.read_bytes()


def test_no_frame_and_frames_out_of_order_leave_no_file(
    video: Series, write_video: Write, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no frame was segmented"):
        write_video(video, [])
    with pytest.raises(DataError, match="not later than the one before"):
        write_video(video, [flat(1, (9, 9, 9)), flat(0, (9, 9, 9))])
    assert list(tmp_path.iterdir()) == []


def test_without_pyav_the_extra_is_named(
    video: Series, write_video: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sam2unet\[video\]'"):
        write_video(video, [])


def test_the_rate_is_stated_as_a_fraction(video: Series, write_video: Write) -> None:
    path = write_video(video, [flat(index, (90, 90, 90)) for index in range(30)])
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
