"""Headers as careless writers leave them: what is shown is right, and what was guessed is told."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from sam2unet_core.dicom import open_study, scan
from sam2unet_core.types import Series, Skipped

CT = "1.2.840.10008.5.1.4.1.1.2"
RAMP = np.array([[0, 64, 128, 255]], np.uint8)
DEEP = np.array([[0, 1000, 2000, 3000]], np.uint16)
PLACE = {
    "ImagePositionPatient": [0, 0, 5],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [0.5, 0.25],
}


def spoil(path: Path, **elements: bytes | None) -> Path:
    """Put bytes into elements as a careless writer would, or take elements out."""
    dataset = dcmread(path)
    for keyword, value in elements.items():
        tag = Tag(tag_for_keyword(keyword))
        if tag in dataset:
            del dataset[tag]
        if value is not None:
            raw = RawDataElement(tag, "DS", len(value), value, 0, False, True, True)
            dataset._dict[tag] = raw
    dataset.save_as(path)
    return path


def seen(path: Path) -> tuple[Series, list[int], list[str], list[str]]:
    """Return the series, the greys of its first frame, its codes and its sentences."""
    (series,) = open_study(path)
    (frame,) = series.frames()
    told = [*series.instances[0].cautions, *frame.cautions]
    return (
        series,
        frame.pixels[0, :, 0].tolist(),
        [each.code for each in told],
        [each.message for each in told],
    )


@pytest.mark.parametrize(
    ("gone", "assumed"),
    [
        ("PixelRepresentation", 0),
        ("BitsStored", 16),
        ("HighBit", 15),
        ("SamplesPerPixel", 1),
        ("PhotometricInterpretation", "MONOCHROME2"),
        ("BitsAllocated", 16),
    ],
)
def test_a_missing_element_gets_its_obvious_value_and_a_warning(write, gone, assumed) -> None:
    path = write("a.dcm", DEEP, WindowCenter=1500.5, WindowWidth=3001)
    whole = seen(path)[1]
    spoil(path, **{gone: None})
    _, greys, codes, messages = seen(path)
    assert greys == whole == [0, 85, 170, 255]
    assert codes == ["value_assumed"]
    assert messages == [f"{gone} is missing; {assumed} was assumed"]


@pytest.mark.parametrize("gone", ["Rows", "Columns"])
def test_what_cannot_be_assumed_is_named(write, gone) -> None:
    (found,) = scan(spoil(write("a.dcm", DEEP), **{gone: None}))
    assert isinstance(found, Skipped)
    assert found.reason == "corrupt"
    assert f"{gone} is missing" in found.message


def test_a_header_without_any_word_on_the_pixels_is_named(write) -> None:
    path = spoil(write("a.dcm", DEEP), SamplesPerPixel=None, PhotometricInterpretation=None)
    (found,) = scan(path)
    assert isinstance(found, Skipped)
    assert "PhotometricInterpretation and SamplesPerPixel are missing" in found.message


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        *itertools.product(
            ("WindowCenter", "WindowWidth"), (b"nan", b"inf ", b"-inf", b"1e400 ", b"HU", b"")
        ),
        ("WindowWidth", b"0 "),  # a centre of 0 is one
    ],
)
def test_a_window_that_cannot_be_is_left_out_and_the_next_best_is_taken(
    write, keyword, value
) -> None:
    path = write("a.dcm", DEEP, WindowCenter=[1500.5, 1000.5], WindowWidth=[3001, 2001])
    second = b"1000.5" if keyword == "WindowCenter" else b"2001"
    spoil(path, **{keyword: value + b"\\" + second})
    _, greys, codes, messages = seen(path)
    assert greys == [0, 128, 255, 255]  # (x - 1000) / 2000 + 0.5 of the second window
    assert codes == ["value_ignored"]
    assert messages[0].startswith(keyword)


@pytest.mark.parametrize("width", [b"nan", b"inf ", b"0 ", b"-5", b"wide"])
def test_without_a_usable_window_the_values_themselves_are_shown(write, width) -> None:
    path = spoil(write("a.dcm", DEEP, WindowCenter=10), WindowWidth=width)
    _, greys, codes, messages = seen(path)
    assert greys == [0, 85, 170, 255]
    assert codes == ["value_ignored", "window_guessed"]
    assert "WindowWidth" in messages[0]


@pytest.mark.parametrize("slope", [b"nan", b"inf ", b"0 ", b"1,5 ", b"per HU"])
def test_a_rescale_slope_that_matters_is_refused_by_its_name(write, slope) -> None:
    path = write("a.dcm", DEEP, Modality="CT", RescaleIntercept=0, WindowCenter=9, WindowWidth=99)
    (series,) = open_study(spoil(path, RescaleSlope=slope))
    told: list[str] = []
    assert list(series.frames(on_error=lambda _, error: told.append(str(error)))) == []
    assert "RescaleSlope is " in told[0]
    assert "copy it again" not in told[0]


def test_a_decimal_comma_in_what_matters_is_quoted(write) -> None:
    path = write("a.dcm", DEEP, Modality="CT", RescaleSlope=1)
    (series,) = open_study(spoil(path, RescaleIntercept=b"-1024,5 "))
    told: list[str] = []
    list(series.frames(on_error=lambda _, error: told.append(str(error))))
    assert "RescaleIntercept is '-1024,5'" in told[0]


def test_a_rescale_intercept_that_does_not_matter_is_left_out(write) -> None:
    # Without a window, and with no unit, each frame is shown over its own range.
    path = spoil(write("a.dcm", DEEP, Modality="MR", RescaleSlope=1), RescaleIntercept=b"HU")
    _, greys, codes, _ = seen(path)
    assert greys == [0, 85, 170, 255]
    assert codes == ["value_ignored", "window_guessed"]


def test_text_of_a_person_is_not_quoted(write) -> None:
    path = spoil(write("a.dcm", DEEP), WindowCenter=b"SENTINEL", WindowWidth=b"SENTINEL")
    assert not [text for text in seen(path)[3] if "SENTINEL" in text]


@pytest.mark.parametrize(
    "value", [b"nan\\0\\0 ", b"0\\inf\\0", b"1e400\\0\\0 ", b"0\\0", b"a\\b\\c"]
)
def test_a_position_that_cannot_be_is_left_out_and_healthy_series_are_not_touched(
    write, value
) -> None:
    bad = spoil(write("bad.dcm", DEEP, **PLACE), ImagePositionPatient=value)
    series, _, codes, _ = seen(bad)
    assert series.geometry is None
    assert series.kind == "stack"
    assert "value_ignored" in codes
    write("good.dcm", DEEP, **PLACE, SeriesInstanceUID="1.2.3.5")
    found = {s.relative: s for s in open_study(bad.parent)}
    geometry = found["good.dcm"].geometry
    assert geometry is not None
    assert geometry.positions.tolist() == [[0, 0, 5]]


def test_a_decimal_comma_in_a_length_is_read_as_meant_and_told(write) -> None:
    path = spoil(write("a.dcm", DEEP, **PLACE), PixelSpacing=b"0,5\\0,25", SliceThickness=b"2,5 ")
    series, _, codes, messages = seen(path)
    assert series.spacing_mm == (0.5, 0.25)
    assert series.geometry is not None
    assert series.geometry.thickness_mm == 2.5
    assert codes.count("value_corrected") == 2
    assert "PixelSpacing is '0,5\\0,25'; read with a decimal point" in messages


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("InstanceNumber", b"one "),
        ("InstanceNumber", b"1.5 "),
        ("InstanceNumber", b"1\\2 "),
        ("NumberOfFrames", b"x "),
        ("NumberOfFrames", b"-3"),
        ("NumberOfFrames", b"0 "),
        ("EchoTime", b"fast"),
        ("SliceThickness", b"thick "),
        ("FrameTime", b"nan "),
        ("PixelPaddingValue", b"none"),
        ("PatientWeight", b"70,5"),
    ],
)
def test_junk_in_an_element_that_does_not_matter_ends_nothing(write, keyword, value) -> None:
    path = spoil(write("a.dcm", RAMP, **PLACE), **{keyword: value})
    series, greys, _, _ = seen(path)
    assert greys == [0, 64, 128, 255]
    header = series.dataset(0)
    assert header is not None
    for _ in header.iterall():  # all that is left can be read
        pass


def test_values_in_higher_bits_are_brought_down(write) -> None:
    # 12 bits of 16 that end at bit 15, as files before 1993 have them (HighBit 15).
    path = write("a.dcm", (DEEP << 4).astype(np.uint16), BitsStored=12, HighBit=15,
                 WindowCenter=1500.5, WindowWidth=3001)  # fmt: skip
    assert seen(path)[1:3] == ([0, 85, 170, 255], [])


@pytest.mark.parametrize(("keyword", "dtype"), [("Float", "<f4"), ("DoubleFloat", "<f8")])
def test_float_pixel_data_are_read_and_what_is_not_finite_is_told(write, keyword, dtype) -> None:
    values = np.array([[-1.5, 0.0, np.nan, 1.5]], dtype)
    path = write("a.dcm", DEEP, Modality="NM")
    dataset = dcmread(path)
    for gone in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, gone)
    dataset.BitsAllocated = 8 * values.itemsize
    setattr(dataset, f"{keyword}PixelData", values.tobytes())
    dataset.save_as(path)
    _, greys, codes, _ = seen(path)
    assert greys == [0, 128, 0, 255]
    assert codes == ["not_finite", "window_guessed"]


def test_a_frame_without_a_finite_number_is_refused(write) -> None:
    path = write("a.dcm", DEEP, Modality="NM")
    dataset = dcmread(path)
    del dataset.PixelData
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = np.full((1, 4), np.inf, "<f4").tobytes()
    dataset.save_as(path)
    (series,) = open_study(path)
    told: list[str] = []
    assert list(series.frames(on_error=lambda _, error: told.append(str(error)))) == []
    assert told == ["a.dcm: no pixel of the frame is a finite number"]


@pytest.mark.parametrize("rows", [8, 1])
def test_one_extreme_pixel_does_not_hide_all_others(write, rows) -> None:
    stored = np.tile(np.arange(1000, dtype=np.uint16), (rows, 1))
    stored[0, 0] = 65535
    path = write("a.dcm", stored, Modality="MR")
    (series,) = open_study(path)
    (frame,) = series.frames()
    assert frame.pixels[-1, 999, 0] == 255
    assert frame.pixels[-1, 500, 0] == pytest.approx(128, abs=2)
    assert [each.code for each in frame.cautions] == ["window_guessed"]
    assert "percentile" in frame.cautions[0].message


def test_a_voi_table_that_cannot_be_read_gives_way_to_the_window(write) -> None:
    table = Dataset()
    table.LUTDescriptor = [4, 0, 16]
    path = write("a.dcm", DEEP, VOILUTSequence=[table], WindowCenter=1500.5, WindowWidth=3001)
    _, greys, codes, messages = seen(path)
    assert greys == [0, 85, 170, 255]
    assert codes == ["value_ignored"]
    assert "VOILUTSequence" in messages[0]


def test_a_modality_table_or_a_palette_that_cannot_be_read_is_named(write) -> None:
    table = Dataset()
    table.LUTDescriptor = [4, 0, 16]
    write("a.dcm", DEEP, ModalityLUTSequence=[table], SeriesInstanceUID="1.2.3.5")
    path = write("b.dcm", RAMP, PhotometricInterpretation="PALETTE COLOR")
    told: list[str] = []
    for series in open_study(path.parent):
        list(series.frames(on_error=lambda _, error: told.append(str(error))))
    assert sorted(told)[0].startswith("a.dcm: ModalityLUTSequence cannot be read")
    assert sorted(told)[1].startswith("b.dcm: the palette")


def test_a_siemens_mosaic_is_told(write) -> None:
    path = write("a.dcm", DEEP, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])
    assert "mosaic" in seen(path)[2]


@pytest.mark.parametrize("kept", range(133, 700, 13))
def test_a_file_cut_off_within_its_header_is_truncated(write, kept) -> None:
    path = write("a.dcm", DEEP, SOPClassUID=CT)
    content = path.read_bytes()
    end = content.rindex(b"\xe0\x7f\x10\x00")
    path.write_bytes(content[: min(kept, end)])
    (found,) = scan(path)
    assert isinstance(found, Skipped)
    assert found.reason == "truncated"
    assert "copy it again" in found.message


def test_a_ct_without_its_rescale_is_told(write) -> None:
    path = write("a.dcm", DEEP, Modality="CT", WindowCenter=1500.5, WindowWidth=3001)
    _, greys, codes, messages = seen(path)
    assert greys == [0, 85, 170, 255]
    assert codes == ["value_assumed", "value_assumed"]
    assert "RescaleIntercept is missing; 0 was assumed" in messages


def test_values_that_take_more_bits_than_stated_are_told(write) -> None:
    stored = np.array([[0, 1000, 4095, 6300]], np.uint16)
    path = write("a.dcm", stored, BitsStored=12, HighBit=11, WindowCenter=2048, WindowWidth=4096)
    _, greys, codes, messages = seen(path)
    assert greys[:3] == [0, 62, 255]
    assert codes == ["value_ignored"]
    assert "BitsStored is 12, but 25.00% of the pixels use more" in messages[0]


def test_overlays_in_unused_bits_are_no_values(write) -> None:
    stored = np.array([[0, 1000, 4095, 1000 + (1 << 12)]], np.uint16)
    path = write("a.dcm", stored, BitsStored=12, HighBit=11, WindowCenter=2048, WindowWidth=4096)
    dataset = dcmread(path)
    dataset.add_new((0x6000, 0x0102), "US", 12)
    dataset.save_as(path)
    assert seen(path)[1:3] == ([0, 62, 255, 62], [])
