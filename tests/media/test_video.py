"""Video as it was filmed: colours, frame order and count, checked against what was drawn."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate

from sam2unet_core.dicom import open_study, scan
from sam2unet_core.errors import InputError
from sam2unet_core.media.video import pictures, probe, video_series
from sam2unet_core.types import Series, Skipped

BARS = [(255, 255, 255), (255, 255, 0), (0, 255, 255), (0, 255, 0),
        (255, 0, 255), (255, 0, 0), (0, 0, 255), (16, 40, 200)]  # fmt: skip
BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)  # Kr, Kb


def bars(height: int, width: int) -> np.ndarray:
    picture = np.zeros((height, width, 3), np.uint8)
    for index, colour in enumerate(BARS):
        picture[:, index * width // 8 : (index + 1) * width // 8] = colour
    return picture


def planes(rgb: np.ndarray, matrix: tuple[float, float], *, full: bool) -> list[np.ndarray]:
    """Return Y, Cb, Cr by the equations of ITU-R BT.601 / BT.709, chroma at half size."""
    kr, kb = matrix
    red, green, blue = np.moveaxis(rgb.astype(float), 2, 0)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = [(blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))]
    scaled = [luma, *(c + 128 for c in chroma)]
    if not full:
        scaled = [16 + luma * 219 / 255, *(128 + c * 224 / 255 for c in chroma)]
    whole = [np.rint(np.clip(p, 0, 255)).astype(np.uint8) for p in scaled]
    return [whole[0], whole[1][::2, ::2], whole[2][::2, ::2]]


def frame_of(parts: list[np.ndarray], name: str = "yuv420p") -> av.VideoFrame:
    height, width = parts[0].shape
    frame = av.VideoFrame(width, height, name)
    for plane, values in zip(frame.planes, parts, strict=True):
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : plane.width] = values
        plane.update(padded)
    return frame


def write_video(path: Any, frames: list[av.VideoFrame], *, codec: str = "libx264",
                rate: Fraction | int = 25, form: str | None = None, space: Any = None,
                full: bool = False, options: dict[str, str] | None = None) -> None:  # fmt: skip
    with av.open(path, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = frames[0].width, frames[0].height
        stream.pix_fmt = frames[0].format.name
        if space is not None:
            stream.codec_context.colorspace = int(space)
            stream.codec_context.color_range = int(ColorRange.JPEG if full else ColorRange.MPEG)
        for frame in frames:
            if space is not None:
                frame.colorspace = space
                frame.color_range = ColorRange.JPEG if full else ColorRange.MPEG
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


LOSSLESS = {"qp": "0", "preset": "ultrafast", "threads": "1"}


def numbered(count: int, height: int = 48, width: int = 64) -> list[av.VideoFrame]:
    """Return grey frames that say their number in ten black or white fields."""
    frames = []
    for number in range(count):
        luma = np.full((height, width), 16, np.uint8)
        for bit in range(8):
            if number >> bit & 1:
                luma[8:40, bit * 8 : bit * 8 + 8] = 235
        neutral = np.full((height // 2, width // 2), 128, np.uint8)
        frames.append(frame_of([luma, neutral, neutral]))
    return frames


def number_in(pixels: np.ndarray) -> int:
    return sum(int(pixels[24, bit * 8 + 4, 0] > 127) << bit for bit in range(8))


@pytest.mark.parametrize(
    ("space", "matrix", "full", "size"),
    [
        (Colorspace.ITU709, BT709, False, (48, 128)),
        (Colorspace.ITU601, BT601, False, (48, 128)),
        (Colorspace.ITU709, BT709, True, (48, 128)),
        (Colorspace.ITU601, BT601, True, (48, 128)),
        (None, BT601, False, (48, 128)),
        (None, BT709, False, (720, 1280)),
    ],
)
def test_colour_bars_keep_their_colours(tmp_path, space, matrix, full, size) -> None:
    path, drawn = tmp_path / "bars.mkv", bars(*size)
    frame = frame_of(planes(drawn, matrix, full=full))
    write_video(str(path), [frame], space=space, full=full, options=LOSSLESS)
    (shown,) = pictures(path)
    centres = slice(size[1] // 16, None, size[1] // 8)
    difference = shown.pixels[:, centres].astype(int) - drawn[:, centres]
    assert np.abs(difference).max() <= 3


def test_full_range_is_believed_where_only_a_tag_says_so(tmp_path) -> None:
    path, drawn = tmp_path / "bars.mkv", bars(48, 128)
    frame = frame_of(planes(drawn, BT709, full=True))
    write_video(str(path), [frame], codec="ffv1", space=Colorspace.ITU709, full=True)
    (shown,) = pictures(path)
    difference = shown.pixels[:, 8::16].astype(int) - drawn[:, 8::16]
    assert np.abs(difference).max() <= 3


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"bf": "3", "g": "12", "b-adapt": "0"}),
        ("a.mov", "libx264", {"bf": "2", "g": "30"}),
        ("a.mkv", "libx265", {"x265-params": "bframes=3:log-level=none"}),
        ("a.avi", "mpeg4", {"bf": "0"}),
        ("a.mpg", "mpeg2video", {"bf": "2"}),
    ],
)
def test_frames_come_in_order_and_all_with_b_frames(tmp_path, name, codec, options) -> None:
    path = tmp_path / name
    write_video(str(path), numbered(37), codec=codec, options=options)
    assert probe(path).frames == 37
    shown = list(pictures(path))
    assert [number_in(p.pixels) for p in shown] == list(range(37))
    assert [p.index for p in shown] == list(range(37))


def test_an_odd_frame_rate_keeps_its_clock(tmp_path) -> None:
    path = tmp_path / "a.mp4"
    write_video(str(path), numbered(30), rate=Fraction(30000, 1001))
    series = video_series(path, source_path=tmp_path, relative="a.mp4")
    assert isinstance(series, Series)
    assert series.frames_per_second == pytest.approx(29.97, abs=0.01)
    taken = list(series.frames(indices=range(0, series.frame_count, 10)))
    assert [(f.index, f.number, number_in(f.pixels)) for f in taken] == [
        (0, 1, 0), (10, 11, 10), (20, 21, 20)]  # fmt: skip
    assert [f.time_s for f in taken] == pytest.approx([0, 0.33367, 0.66733], abs=1e-4)


def test_a_video_filmed_upright_on_its_side_is_shown_upright(tmp_path) -> None:
    path, corner = tmp_path / "a.mp4", bars(48, 128)
    corner[:16, :16] = (0, 0, 0)
    write_video(str(path), [frame_of(planes(corner, BT601, full=False))], options=LOSSLESS)
    one, minus = (1 << 16).to_bytes(4, "big"), (-1 << 16 & 0xFFFFFFFF).to_bytes(4, "big")
    none, last = bytes(4), (1 << 30).to_bytes(4, "big")
    upright = b"".join((one, none * 3, one, none * 3, last))
    quarter = b"".join((none, one, none, minus, none, none, none, none, last))  # right goes down
    content = path.read_bytes()
    track = content.index(upright, content.index(b"tkhd"))
    path.write_bytes(content[:track] + quarter + content[track + len(quarter) :])
    info = probe(path)
    assert (info.rows, info.columns) == (128, 48)
    (shown,) = pictures(path)
    expected = np.rot90(corner, -1)  # clockwise
    assert np.abs(shown.pixels[4::16, 4::16].astype(int) - expected[4::16, 4::16]).max() <= 3


def test_a_cut_video_is_not_taken_for_a_whole_one(tmp_path) -> None:
    path = tmp_path / "a.mp4"
    write_video(str(path), numbered(40))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])  # the index lies at the end
    found = video_series(path, source_path=tmp_path, relative="a.mp4")
    assert isinstance(found, Skipped)
    assert found.reason == "corrupt"


def test_text_named_like_a_video_is_refused(tmp_path) -> None:
    path = tmp_path / "a.avi"
    path.write_text("no video")
    found = video_series(path, source_path=tmp_path, relative="a.avi")
    assert isinstance(found, Skipped)
    assert found.message.startswith("a.avi: not a supported video")


def test_without_pyav_the_message_names_the_extra(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.mp4"
    write_video(str(path), numbered(2))
    monkeypatch.setitem(sys.modules, "av", None)
    found = video_series(path, source_path=tmp_path, relative="a.mp4")
    assert isinstance(found, Skipped)
    assert "pip install 'sam2unet[video]'" in found.message


def write_dicom(path: Path, stream: bytes, *, syntax: str, frames: int, pieces: int = 1) -> Path:
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.1.1"
    dataset.SOPInstanceUID, dataset.Modality = "1.2.3", "ES"
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 48, 64, frames
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "YBR_PARTIAL_420"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.CineRate = 7, 0, 25
    size = (len(stream) // pieces + 2) // 2 * 2
    parts = [stream[i : i + size] for i in range(0, len(stream), size)]
    dataset.PixelData = encapsulate(parts, has_bot=False)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("syntax", "codec", "form", "options"),
    [
        ("1.2.840.10008.1.2.4.102", "libx264", "mp4", {"bf": "3", "b-adapt": "0"}),
        ("1.2.840.10008.1.2.4.102", "libx264", "h264", {"bf": "3", "b-adapt": "0"}),
        ("1.2.840.10008.1.2.4.104", "libx264", "mpegts", {"bf": "2"}),
        ("1.2.840.10008.1.2.4.107", "libx265", "hevc", {"x265-params": "log-level=none"}),
        ("1.2.840.10008.1.2.4.100", "mpeg2video", "mpeg2video", {"bf": "2"}),
    ],
)
@pytest.mark.parametrize("pieces", [1, 5])
def test_a_dicom_video_gives_the_frames_it_was_made_of(
    tmp_path, syntax, codec, form, options, pieces
) -> None:
    made = tmp_path / "made"
    write_video(str(made), numbered(23), codec=codec, form=form, options=options)
    path = write_dicom(tmp_path / "v.dcm", made.read_bytes(), syntax=syntax, frames=23,
                       pieces=pieces)  # fmt: skip
    (series,) = open_study(path)
    assert (series.kind, series.frame_count, series.frames_per_second) == ("video", 23, 25)
    shown = list(series.frames())
    assert [number_in(f.pixels) for f in shown] == list(range(23))
    assert [f.number for f in shown] == list(range(1, 24))
    assert shown[10].time_s == pytest.approx(0.4)
    assert [
        number_in(f.pixels) for f in series.frames(indices=range(0, series.frame_count, 9))
    ] == [0, 9, 18]


def test_a_dicom_video_without_pyav_fails_alone_and_names_the_extra(tmp_path, monkeypatch) -> None:
    path = write_dicom(tmp_path / "v.dcm", b"\0" * 64, syntax="1.2.840.10008.1.2.4.102", frames=2)
    monkeypatch.setitem(sys.modules, "av", None)
    (series,) = open_study(path)
    with pytest.raises(InputError, match=r"sam2unet\[video\]") as caught:
        list(series.frames())
    assert caught.value.reason == "unsupported_transfer_syntax"


def test_a_dicom_video_shorter_than_announced_is_truncated(tmp_path) -> None:
    made = tmp_path / "made.mp4"
    write_video(str(made), numbered(10))
    path = write_dicom(tmp_path / "v.dcm", made.read_bytes(), syntax="1.2.840.10008.1.2.4.102",
                       frames=12)  # fmt: skip
    (series,) = open_study(path)
    told: list[str] = []
    frames = list(series.frames(on_error=lambda index, error: told.append(error.reason)))
    assert (len(frames), told) == (10, ["truncated"])
    with pytest.raises(InputError, match="10 of 12 frames"):
        list(series.frames())


def test_damage_that_the_decoder_conceals_is_told_of_the_frames_of_a_dicom_video(tmp_path) -> None:
    made = tmp_path / "made.mp4"
    noise = np.random.default_rng(0).integers(60, 200, (20, 48, 64, 3), np.uint8)
    drawn = [av.VideoFrame.from_ndarray(each, format="rgb24") for each in noise]
    write_video(str(made), [each.reformat(format="yuv420p") for each in drawn],
                options={"g": "5", "bf": "0"})  # fmt: skip
    with av.open(str(made)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    stream, (place, size) = bytearray(made.read_bytes()), packets[10]
    whole = write_dicom(tmp_path / "whole.dcm", bytes(stream), frames=20,
                        syntax="1.2.840.10008.1.2.4.102")  # fmt: skip
    stream[place + size // 3 : place + size // 3 + 40] = b"\x55\xaa" * 20
    broken = write_dicom(tmp_path / "broken.dcm", bytes(stream), frames=20,
                         syntax="1.2.840.10008.1.2.4.102")  # fmt: skip
    told = []
    for path in (whole, broken):
        (series,) = open_study(path)
        frames = list(series.frames())
        assert len(frames) == 20
        told.append([f.number for f in frames if f.cautions])
        assert {c.code for f in frames for c in f.cautions} <= {"pixels_concealed"}
    assert told[0] == []
    assert told[1]
    assert told[1][0] == 11  # the key frame that was damaged
    assert set(told[1]) <= set(range(11, 16))


def test_an_empty_dicom_video_is_refused(tmp_path) -> None:
    path = write_dicom(tmp_path / "v.dcm", b"\0\0", syntax="1.2.840.10008.1.2.4.102", frames=1)
    dataset = dcmread(path)
    dataset.PixelData = encapsulate([b"not a video at all"], has_bot=False)
    dataset.save_as(path)
    (found,) = scan(path)
    assert isinstance(found, Series)
    with pytest.raises(InputError, match="not a supported video"):
        list(found.frames())
