"""Video that was damaged, cut or joined: what is there is read, and what is not is told."""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sam2unet_core.media import video
from sam2unet_core.media.kinds import medium_of
from sam2unet_core.media.video import pictures, video_series
from sam2unet_core.types import Frame, Series, Skipped

CONTAINERS = [
    ("mp4", "mp4", "libx264"), ("mov", "mov", "libx264"), ("MTS", "mpegts", "libx264"),
    ("m2ts", "mpegts", "libx264"), ("vob", "vob", "mpeg2video"), ("mpg", "mpeg", "mpeg2video"),
    ("wmv", "asf", "wmv2"), ("3gp", "3gp", "libx264"), ("flv", "flv", "flv1"),
    ("mxf", "mxf", "mpeg2video"), ("webm", "webm", "libvpx"), ("mkv", "matroska", "libx264"),
    ("avi", "avi", "mpeg4"),
]  # fmt: skip
"""Suffix, FFmpeg's name of the container, and a codec."""


def numbered(path: Path, form: str, codec: str, *, numbers: range,
             size: tuple[int, int] = (128, 96)) -> Path:  # fmt: skip
    """Write frames that say their number in eight black or white fields."""
    options = {"g": "5"} if codec in ("libx264", "mpeg2video", "mpeg4") else {}
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        noise = np.random.default_rng(0).integers(100, 150, (size[1], size[0], 3), np.uint8)
        for number in numbers:
            picture = noise.copy()
            for bit in range(8):
                picture[24:72, bit * 16 : bit * 16 + 16] = 255 * (number >> bit & 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def number_in(frame: Frame) -> int:
    return sum(int(frame.pixels[48, bit * 16 + 8, 0] > 127) << bit for bit in range(8))


def opened(path: Path) -> Series:
    series = video_series(path, source_path=path.parent, relative=path.name)
    assert isinstance(series, Series), series
    return series


def told(frames: list[Frame]) -> dict[str, list[int]]:
    """Return the numbers of the frames with a caution, by its code."""
    found: dict[str, list[int]] = {}
    for frame in frames:
        for code in {caution.code for caution in frame.cautions}:
            found.setdefault(code, []).append(frame.number)
    return found


@pytest.mark.parametrize(("suffix", "form", "codec"), CONTAINERS)
def test_whole_recordings_are_read_without_a_word_whatever_the_recorder(
    tmp_path, suffix, form, codec
) -> None:
    path = numbered(tmp_path / f"a.{suffix}", form, codec, numbers=range(12))
    assert medium_of(path) == "video"
    series = opened(path)
    frames = list(series.frames())
    assert [number_in(frame) for frame in frames] == list(range(12))
    assert told(frames) == {}
    assert series.instances[0].cautions == ()
    for name in ("a", "a.png", "a.dat"):  # by content
        path = path.rename(tmp_path / name)
        assert medium_of(path) == "video"


@pytest.mark.parametrize(("suffix", "form", "codec"), CONTAINERS)
def test_recordings_joined_end_to_end_are_one_video_whose_times_go_on(
    tmp_path, suffix, form, codec
) -> None:
    first = numbered(tmp_path / "1", form, codec, numbers=range(12))
    second = numbered(tmp_path / "2", form, codec, numbers=range(12, 20))
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    series = opened(path)
    assert series.frame_count == 20
    frames = list(series.frames())
    assert [number_in(frame) for frame in frames] == list(range(20))
    np.testing.assert_allclose([f.time_s for f in frames], np.arange(20) / 25, atol=2e-3)
    assert told(frames) == {"clock_restarted": [13]}
    assert told(list(series.frames(indices=range(0, series.frame_count, 5)))) == {
        "clock_restarted": [16]
    }


def test_three_recordings_restart_the_clock_twice(tmp_path) -> None:
    parts = [numbered(tmp_path / f"{n}.ts", "mpegts", "libx264", numbers=range(6 * n, 6 * n + 6))
             for n in range(3)]  # fmt: skip
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = list(opened(path).frames())
    assert [number_in(frame) for frame in frames] == list(range(18))
    assert told(frames) == {"clock_restarted": [7, 13]}


@pytest.mark.parametrize(("suffix", "form", "codec"), [
    ("mp4", "mp4", "libx264"), ("mkv", "matroska", "libx264"), ("avi", "avi", "mpeg4"),
    ("mxf", "mxf", "mpeg2video")])  # fmt: skip
def test_frames_that_the_decoder_fills_in_are_named_and_what_is_built_on_them(
    tmp_path, suffix, form, codec
) -> None:
    path = numbered(tmp_path / f"a.{suffix}", form, codec, numbers=range(20), size=(640, 480))
    before = {frame.number: frame.pixels for frame in opened(path).frames()}
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content, (place, size) = bytearray(path.read_bytes()), packets[10]  # a key frame
    content[place + size // 3 : place + size // 3 + 40] = b"\x55\xaa" * 20
    path.write_bytes(content)
    frames = list(opened(path).frames())
    changed = {f.number for f in frames if not np.array_equal(f.pixels, before[f.number])}
    assert changed
    named = set(told(frames)["pixels_concealed"])
    assert min(changed) in named
    assert changed <= named | set(range(16, 21))
    assert not named & set(range(1, 9))


def test_a_file_that_holds_fewer_frames_than_it_announces_says_so(tmp_path) -> None:
    for suffix, form, codec in (("avi", "avi", "mpeg4"), ("mkv", "matroska", "libx264"),
                                ("flv", "flv", "flv1"), ("mxf", "mxf", "mpeg2video")):  # fmt: skip
        path = numbered(tmp_path / f"a.{suffix}", form, codec, numbers=range(30), size=(640, 480))
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
        series = opened(path)
        assert 0 < series.frame_count < 25
        (caution,) = series.instances[0].cautions
        assert caution.code == "frame_count_differs"
        assert "states 30 frames" in caution.message or "states 1.2 s" in caution.message


def test_frames_of_another_size_are_left_out_and_told(tmp_path) -> None:
    first = numbered(tmp_path / "1", "mpegts", "libx264", numbers=range(6))
    second = numbered(tmp_path / "2", "mpegts", "libx264", numbers=range(6), size=(160, 128))
    path = tmp_path / "a.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    errors = []
    series = opened(path)
    frames = list(series.frames(on_error=lambda index, error: errors.append(error)))
    assert [number_in(frame) for frame in frames] == list(range(6))
    (error,) = errors
    assert error.reason == "inconsistent_geometry"
    assert "6 frames were skipped: frame 7 has another size (160 x 128" in str(error)


def test_a_container_that_states_another_size_is_read_at_that_of_its_frames(tmp_path) -> None:
    path = numbered(tmp_path / "a.avi", "avi", "mpeg4", numbers=range(3))
    content = path.read_bytes()
    place = content.index(b"strf") + 8 + 4  # BITMAPINFOHEADER: width, height
    stated = (64).to_bytes(4, "little") + (48).to_bytes(4, "little")
    path.write_bytes(content[:place] + stated + content[place + 8 :])
    series = opened(path)
    frames = list(series.frames())
    assert (series.rows, series.columns) == frames[0].pixels.shape[:2] == (96, 128)


def test_two_frames_at_one_time_are_shown_one_after_the_other(tmp_path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        packets = []
        for _ in range(4):
            blank = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            packets += stream.encode(blank)
        packets += stream.encode()
        for packet, time in zip(packets, (0, 40, 40, 80), strict=True):
            packet.time_base = Fraction(1, 1000)
            packet.pts = packet.dts = time
            container.mux(packet)
    times = [picture.time_s for picture in pictures(path)]
    assert times == sorted(set(times))
    assert times[3] == pytest.approx(0.08)
    assert all(not picture.cautions for picture in pictures(path))


@pytest.mark.parametrize(("suffix", "form"), [("mts", "mpegts"), ("mkv", "matroska")])
def test_interlaced_video_has_as_many_frames_as_decode(tmp_path, monkeypatch, suffix, form) -> None:
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream("libx264", rate=25, options={"x264-params": "tff=1"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(12):
            grey = np.full((96, 128, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    assert opened(path).frame_count == 12
    if form == "mpegts":  # no encoder here codes fields apart: two packets a frame are made up
        count = video._count

        def twice(*args: object) -> object:
            found = count(*args)
            return replace(found, frames=2 * found.frames)

        monkeypatch.setattr(video, "_count", twice)
    series = opened(path)
    assert series.frame_count == 12
    assert [frame.number for frame in series.frames()] == list(range(1, 13))


def test_an_empty_file_and_sound_alone_are_told_apart_from_damage(tmp_path) -> None:
    (tmp_path / "a.mp4").touch()
    found = video_series(tmp_path / "a.mp4", source_path=tmp_path, relative="a.mp4")
    assert isinstance(found, Skipped)
    assert found.reason == "truncated"
    with av.open(str(tmp_path / "b.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp",
                                             layout="mono")  # fmt: skip
        silence.sample_rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    found = video_series(tmp_path / "b.mp4", source_path=tmp_path, relative="b.mp4")
    assert isinstance(found, Skipped)
    assert found.reason == "not_an_image"


def test_a_name_that_is_no_utf_8_is_read_all_the_same(tmp_path) -> None:
    path = numbered(tmp_path / "a.mp4", "mp4", "libx264", numbers=range(3))
    path = path.rename(tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    assert [number_in(frame) for frame in opened(path).frames()] == [0, 1, 2]
