"""Frames that are in a file are read, whatever Number of Frames says; the difference is told."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from sam2unet_core.dicom import open_study, scan
from sam2unet_core.types import Skipped

MULTIFRAME = "1.2.840.10008.5.1.4.1.1.7.2"
FRAMES = np.stack([np.full((4, 6), 40 * n, np.uint8) for n in range(1, 4)])


def stream(frame: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpegls_encode(frame))


def greys(path: Path) -> list[int]:
    (series,) = open_study(path)
    assert series.frame_count == series.instances[0].frames
    return [int(frame.pixels[0, 0, 0]) for frame in series.frames()]


def told(path: Path) -> list[tuple[str, str]]:
    (series,) = open_study(path)
    return [(each.code, each.message) for each in series.instances[0].cautions]


@pytest.mark.parametrize("announced", [1, 2, 3])
@pytest.mark.parametrize("way", ["raw", "table", "short table", "no table", "extended", "parts"])
def test_all_frames_are_read_however_few_are_announced(write, way, announced) -> None:
    coded = [stream(frame) for frame in FRAMES]
    coded = [each + b"\0" * (len(each) % 2) for each in coded]
    more = {}
    if way == "raw":
        syntax, data = ExplicitVRLittleEndian, FRAMES.tobytes()
    else:
        syntax = UID("1.2.840.10008.1.2.4.80")
        data = encapsulate(
            coded,
            has_bot=way in ("table", "short table"),
            fragments_per_frame=3 if way == "parts" else 1,
        )
        if way == "short table":  # a table of one frame, as the header counts
            data = b"\xfe\xff\x00\xe0\x04\0\0\0\0\0\0\0" + data[8 + 4 * 3 :]
        if way == "extended":
            data, offsets, lengths = encapsulate_extended(coded)
            more = {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    path = write("a.dcm", FRAMES, frames=announced, syntax=syntax, pixel_data=data,
                 SOPClassUID=MULTIFRAME, **more)  # fmt: skip
    assert greys(path) == [40, 80, 120]
    if announced == 3:
        assert told(path) == []
    else:
        plural = "" if announced == 1 else "s"
        text = f"the header states {announced} frame{plural}, the file holds 3"
        assert told(path) == [("frame_count_differs", text)]


@pytest.mark.parametrize("announced", [1, 3, 4])
def test_a_deflated_file_is_counted_too(write, announced) -> None:
    path = write("a.dcm", FRAMES, frames=announced, syntax=DeflatedExplicitVRLittleEndian,
                 SOPClassUID=MULTIFRAME)  # fmt: skip
    if announced == 4:
        (found,) = scan(path)
        assert isinstance(found, Skipped)
        assert (found.reason, "72 of 96 bytes" in found.message) == ("truncated", True)
        return
    assert greys(path) == [40, 80, 120]
    assert [code for code, _ in told(path)] == (["frame_count_differs"] if announced == 1 else [])


def test_no_word_on_the_number_of_frames_is_one(write) -> None:
    path = write("a.dcm", FRAMES, frames=3, SOPClassUID=MULTIFRAME)
    dataset = dcmread(path)
    del dataset.NumberOfFrames
    dataset.save_as(path)
    assert greys(path) == [40, 80, 120]
    assert told(path)[0][0] == "frame_count_differs"


@pytest.mark.parametrize("trailing", [1, 2, 21])
def test_padding_behind_the_frames_is_no_frame(write, trailing) -> None:
    data = FRAMES.tobytes() + b"\0" * trailing  # a frame has 24 bytes
    path = write("a.dcm", FRAMES, frames=3, pixel_data=data, SOPClassUID=MULTIFRAME)
    assert greys(path) == [40, 80, 120]
    assert told(path) == []


def test_elements_behind_the_pixels_are_no_frames(write) -> None:
    path = write("a.dcm", FRAMES, frames=3, SOPClassUID=MULTIFRAME)
    dataset = dcmread(path)
    dataset.DataSetTrailingPadding = b"\0" * 240
    dataset.save_as(path)
    assert greys(path) == [40, 80, 120]
    assert told(path) == []


def test_a_second_fragment_may_begin_like_another_kind_of_stream(write) -> None:
    from pydicom.encaps import itemize_fragment

    coded = bytes(imagecodecs.jpeg2k_encode(FRAMES[0], level=0))
    cut = coded.index(b"\xff\x93") + 4
    parts = [coded[:cut], b"\xff\x0a" + coded[cut:]]  # the first bytes of JPEG XL
    data = b"".join(
        [itemize_fragment(b""), *(itemize_fragment(p + b"\0" * (len(p) % 2)) for p in parts)]
    )
    path = write("a.dcm", FRAMES[0], syntax=UID("1.2.840.10008.1.2.4.90"), pixel_data=data)
    (series,) = open_study(path)
    assert (series.frame_count, told(path)) == (1, [])


def test_one_frame_in_many_fragments_is_one(write) -> None:
    data = encapsulate([stream(FRAMES[0])], has_bot=False, fragments_per_frame=4)
    path = write("a.dcm", FRAMES[0], syntax=UID("1.2.840.10008.1.2.4.80"), pixel_data=data)
    assert greys(path) == [40]
    assert told(path) == []


def test_a_stride_counts_the_frames_that_are_there(write) -> None:
    path = write("a.dcm", FRAMES, frames=1, pixel_data=FRAMES.tobytes(), SOPClassUID=MULTIFRAME)
    (series,) = open_study(path)
    assert [frame.number for frame in series.frames(indices=range(0, series.frame_count, 2))] == [
        1,
        3,
    ]


@pytest.mark.parametrize("announced", [2, 7, 10])
def test_a_video_is_read_to_its_end(tmp_path, announced) -> None:
    from sam2unet_core.phantom.dicom import write_studies

    write_studies(tmp_path, frames=7, seed=0, size=(64, 64), video=True)
    (path,) = [
        each
        for each in tmp_path.rglob("*.dcm")
        if dcmread(each, stop_before_pixels=True).get("NumberOfFrames", 0)
        and str(dcmread(each, stop_before_pixels=True).file_meta.TransferSyntaxUID) in VIDEO
    ]
    dataset = dcmread(path)
    there = int(dataset.NumberOfFrames)
    dataset.NumberOfFrames = announced
    dataset.save_as(path)
    (series,) = open_study(path)
    errors: list[str] = []
    frames = list(series.frames(on_error=lambda _, error: errors.append(error.reason)))
    assert len(frames) == there
    if announced < there:
        text = f"the header states {announced} frames, the file holds {there}"
        assert told(path) == [("frame_count_differs", text)]
    else:
        assert errors == (["truncated"] if announced > there else [])


VIDEO = [f"1.2.840.10008.1.2.4.{n}" for n in (100, 101, 102, 103, 104, 105, 106, 107, 108)]
