"""Stored values as a viewer shows them; expected greys and colours are worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEGLSLossless,
    RLELossless,
)

from sam2unet_core.dicom import open_study
from sam2unet_core.task import Window

CT = "1.2.840.10008.5.1.4.1.1.2"
RAMP = np.array([[0, 64, 128, 255]], np.uint8)


def greys(pixels: NDArray[np.uint8]) -> list[int]:
    """Return the greys of a picture of one row, having checked that it is grey."""
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    return [int(v) for v in pixels[0, 0, :, 0]]


def test_eight_bit_greys_are_shown_as_they_are(write, show) -> None:
    assert greys(show(write("a", RAMP))) == [0, 64, 128, 255]


def test_monochrome1_is_shown_inverted(write, show) -> None:
    path = write("a", RAMP, PhotometricInterpretation="MONOCHROME1")
    assert greys(show(path)) == [255, 191, 127, 0]


def test_one_bit_pixels_are_black_and_white(write, show) -> None:
    bits = np.array([[0, 1, 1, 0, 1, 0, 0, 1]], np.uint8)
    packed = np.packbits(bits, bitorder="little").tobytes()
    path = write("a", bits, BitsAllocated=1, BitsStored=1, HighBit=0, pixel_data=packed)
    assert greys(show(path)) == [0, 255, 255, 0, 255, 0, 0, 255]


def test_the_window_follows_the_standards_linear_function(write, show) -> None:
    # PS3.3 C.11.2.1.2.1 with c 50, w 101: x <= -0.5 black, x > 99.5 white, (x - 49.5) / 100 + 0.5.
    stored = np.array([[-1, 0, 50, 99, 100, 700]], np.int16)
    path = write("a", stored, WindowCenter=50, WindowWidth=101)
    expected = [0, 1, 129, 254, 255, 255]  # (0.005, 0.505, 0.995) * 255 = 1.3, 128.8, 253.7
    assert greys(show(path)) == expected


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8, np.int8])
def test_large_pictures_take_the_same_window_as_small_ones(write, show, dtype: type) -> None:
    stored = np.array([[0, 20, 50, 99, 100, 127]], dtype)
    options = {"WindowCenter": 50, "WindowWidth": 101}
    small = show(write("small", stored, **options))
    large = show(write("large", np.tile(stored, (300, 50)), **options))
    np.testing.assert_array_equal(large[0], np.tile(small[0], (300, 50, 1)))


def test_rescale_comes_before_the_window(write, show) -> None:
    stored = np.array([[0, 1000, 1040, 2000]], np.uint16)
    path = write(
        "a", stored, RescaleSlope=1, RescaleIntercept=-1000, WindowCenter=40, WindowWidth=401
    )
    # In the window's terms -1000, 0, 40, 1000: black, (0 - 39.5) / 400 + 0.5 = 0.40, 0.50, white.
    assert greys(show(path)) == [0, 102, 128, 255]


def test_the_tasks_window_replaces_the_files_for_ct_only(write, show) -> None:
    stored = np.array([[0, 1000, 1040, 2000]], np.uint16)
    window = Window(center=0.5, width=2001)
    values = {"RescaleSlope": 1, "RescaleIntercept": -1000, "WindowCenter": 40, "WindowWidth": 401}
    ct = write("ct", stored, SOPClassUID=CT, Modality="CT", **values)
    other = write("other", stored, Modality="MR", **values)
    # -1000, 0, 40, 1000 over 2000: 0, 0.5, 0.52, 1.
    assert greys(show(ct, window=window)) == [0, 128, 133, 255]
    assert greys(show(other, window=window)) == [0, 102, 128, 255]


def test_a_ct_without_any_window_is_shown_in_that_of_soft_tissue(write, show) -> None:
    stored = np.array([[-1000, -160, 40, 240, 3000]], np.int16)
    assert greys(show(write("a", stored, SOPClassUID=CT, Modality="CT"))) == [0, 0, 128, 255, 255]


def test_without_a_window_deep_greys_span_the_frames_range_and_it_is_said(write, show) -> None:
    path = write("a", np.array([[100, 300, 500]], np.uint16))
    (series,) = open_study(path)
    assert greys(show(path)) == [0, 128, 255]
    (frame,) = series.frames()
    assert [each.code for each in frame.cautions] == ["window_guessed"]
    assert "own range" in frame.cautions[0].message


def test_sigmoid_and_exact_windows_are_told_apart(write, show) -> None:
    stored = np.array([[0, 50, 100]], np.int16)
    window = {"WindowCenter": 50, "WindowWidth": 100}
    exact = write("a", stored, VOILUTFunction="LINEAR_EXACT", **window)
    sigmoid = write("b", stored, VOILUTFunction="SIGMOID", **window)
    assert greys(show(exact)) == [0, 128, 255]
    # 1 / (1 + exp(-4 (x - 50) / 100)) is 0.1192, 0.5, 0.8808.
    assert greys(show(sigmoid)) == [30, 128, 225]


def test_padding_is_black_and_does_not_widen_the_range(write, show) -> None:
    stored = np.array([[-2000, 100, 200, 300]], np.int16)
    path = write("a", stored, PixelPaddingValue=-2000)
    assert greys(show(path)) == [0, 0, 128, 255]


def test_padding_is_black_in_monochrome1_too(write, show) -> None:
    stored = np.array([[0, 1, 255]], np.uint8)
    path = write("a", stored, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0)
    assert greys(show(path)) == [0, 254, 0]


def test_a_modality_table_is_looked_up_from_its_first_value(write, show) -> None:
    item = Dataset()
    item.LUTDescriptor = [4, 10, 8]
    item.add_new("LUTData", "OW", bytes([5, 100, 200, 250]))
    stored = np.array([[0, 10, 11, 12, 13, 99]], np.uint8)
    path = write("a", stored, ModalityLUTSequence=[item])
    assert greys(show(path)) == [5, 5, 100, 200, 250, 250]


def test_a_deep_modality_table_over_bytes_does_not_wrap(write, show) -> None:
    item = Dataset()
    item.LUTDescriptor = [3, 0, 16]
    item.add_new("LUTData", "US", [0, 1000, 4000])
    path = write("a", np.array([[0, 1, 2]], np.uint8), ModalityLUTSequence=[item])
    assert greys(show(path)) == [0, 64, 255]


def test_a_voi_table_is_shown_over_the_depth_it_states(write, show) -> None:
    item = Dataset()
    item.LUTDescriptor = [3, 0, 12]
    item.add_new("LUTData", "US", [0, 819, 4095])
    path = write("a", np.array([[0, 1, 2, 3]], np.uint16), VOILUTSequence=[item])
    assert greys(show(path)) == [0, 51, 255, 255]


def test_unused_high_bits_do_not_count(write, show) -> None:
    # 12 bits stored; an overlay sits in bit 15 of the second pixel.
    stored = np.array([[0, 0x8800, 0x0FFF]], np.uint16)
    path = write("a", stored, BitsStored=12, HighBit=11, WindowCenter=2048, WindowWidth=4096)
    assert greys(show(path)) == [0, 128, 255]


def test_signed_twelve_bit_values_are_extended(write, show) -> None:
    stored = np.array([[0x0800, 0x0FFF, 0x0000, 0x07FF]], np.uint16)  # -2048, -1, 0, 2047
    path = write("a", stored, BitsStored=12, HighBit=11, PixelRepresentation=1,
                 WindowCenter=0, WindowWidth=4096)  # fmt: skip
    # (-1 + 0.5) / 4095 + 0.5 = 0.49988 and 0.50012.
    assert greys(show(path)) == [0, 127, 128, 255]


def test_signed_values_survive_jpeg_ls_which_knows_no_sign(write, show) -> None:
    stored = np.tile(np.array([[-2048, -1, 0, 2047]], np.int16), (8, 8))
    options = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 0, "WindowWidth": 4096}
    plain = write("plain", stored, **options)
    expected = show(plain)
    dataset = dcmread(plain)
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    dataset.save_as(plain)
    coded = show(plain)
    assert coded[0, 0, :4, 0].tolist() == [0, 127, 128, 255]
    np.testing.assert_array_equal(coded, expected)


def test_colour_by_plane_is_colour_by_pixel(write, show) -> None:
    rgb = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    path = write("a", rgb, colour=True, PlanarConfiguration=1,
                 pixel_data=np.moveaxis(rgb, 2, 0).tobytes())  # fmt: skip
    np.testing.assert_array_equal(show(path)[0], rgb)


@pytest.mark.parametrize(("dtype", "full"), [(np.uint16, 65535), (np.uint32, 4294967295)])
def test_deep_colour_is_scaled_by_its_depth(write, show, dtype: type, full: int) -> None:
    rgb = np.array([[[0, full // 5, full]]], dtype)
    assert show(write("a", rgb, colour=True))[0, 0, 0].tolist() == [0, 51, 255]


def test_ybr_full_is_turned_into_rgb(write, show) -> None:
    # PS3.3 C.7.6.3.1.2 for pure red, green and blue, rounded.
    ybr = np.array([[[76, 85, 255], [150, 44, 21], [29, 255, 107]]], np.uint8)
    path = write("a", ybr, colour=True, PhotometricInterpretation="YBR_FULL")
    expected = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    np.testing.assert_allclose(show(path)[0, 0].astype(int), expected, atol=2)


def test_ybr_422_is_turned_into_rgb_at_full_width(write, show) -> None:
    stream = bytes([76, 76, 85, 255, 29, 29, 255, 107])  # two red pixels, two blue
    path = write("a", np.zeros((1, 4, 3), np.uint8), colour=True, pixel_data=stream,
                 PhotometricInterpretation="YBR_FULL_422")  # fmt: skip
    expected = [[255, 0, 0], [255, 0, 0], [0, 0, 255], [0, 0, 255]]
    np.testing.assert_allclose(show(path)[0, 0].astype(int), expected, atol=2)


def palette(bits: int, count: int, first: int, entries: bytes) -> dict[str, object]:
    tables: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in ("Red", "Green", "Blue"):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [count, first, bits]
        tables[f"{name}PaletteColorLookupTableData"] = entries
    return tables


def test_palette_colour_is_looked_up_and_scaled(write, show) -> None:
    entries = np.array([0, 13107, 65535], "<u2").tobytes()
    tables = palette(16, 3, 2, entries)
    tables["BluePaletteColorLookupTableData"] = np.array([65535, 0, 0], "<u2").tobytes()
    path = write("a", np.array([[0, 2, 3, 4, 9]], np.uint8), **tables)
    expected = [[0, 0, 255], [0, 0, 255], [51, 51, 0], [255, 255, 0], [255, 255, 0]]
    assert show(path)[0, 0].tolist() == expected


def test_a_palette_of_bytes_in_sixteen_bit_pixels_is_not_cut_to_its_first_entries(
    write, show
) -> None:
    entries = bytes(i // 2 for i in range(512))
    path = write("a", np.array([[0, 300, 511]], np.uint16), **palette(8, 512, 0, entries))
    assert greys(show(path)) == [0, 150, 255]


def test_a_big_endian_palette_keeps_its_bytes_in_order(write, show) -> None:
    entries = np.array([0, 0x3300, 0xFF00], ">u2").tobytes()
    path = write("a", np.array([[0, 1, 2]], ">u2"), syntax=ExplicitVRBigEndian,
                 **palette(16, 3, 0, entries))  # fmt: skip
    assert greys(show(path)) == [0, 51, 254]


def test_big_endian_is_read(write, show, tmp_path) -> None:
    stored = np.array([[0, 1000, 2000]], ">u2")
    path = write("a", stored, syntax=ExplicitVRBigEndian, WindowCenter=1000, WindowWidth=2001)
    assert greys(show(path)) == [0, 128, 255]


def test_a_deflated_file_is_read(write, show) -> None:
    assert greys(show(write("a", RAMP, syntax=DeflatedExplicitVRLittleEndian))) == [0, 64, 128, 255]


def test_rle_gives_the_frames_in_their_order(write, show) -> None:
    frames = np.stack([np.full((4, 5, 3), 20 * n, np.uint8) for n in range(6)])
    frames[:, 1, 2] = (255, 0, 7)
    path = write("plain", frames, colour=True, frames=6)
    dataset = dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(path)
    np.testing.assert_array_equal(show(path), frames)
    (series,) = open_study(path)
    taken = list(series.frames(indices=range(0, series.frame_count, 4)))
    assert [(f.index, f.number) for f in taken] == [(0, 1), (4, 5)]
    np.testing.assert_array_equal(taken[1].pixels, frames[4])


def test_frame_times_come_from_the_header(write) -> None:
    stored = np.zeros((3, 2, 2), np.uint8)
    step = write("step", stored, frames=3, FrameTime=40)
    vector = write("vector", stored, frames=3, FrameTimeVector=[0, 30, 50])
    for path, times, rate in ((step, [0, 0.04, 0.08], 25), (vector, [0, 0.03, 0.08], 25)):
        (series,) = open_study(path)
        assert [f.time_s for f in series.frames()] == pytest.approx(times)
        assert series.frames_per_second == pytest.approx(rate)


def test_each_frames_own_rescale_and_window_are_used(write, show) -> None:
    def group(intercept: int, center: float) -> Dataset:
        transformation, voi, item = Dataset(), Dataset(), Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept = 1, intercept
        voi.WindowCenter, voi.WindowWidth = center, 100
        voi.VOILUTFunction = "LINEAR_EXACT"
        item.PixelValueTransformationSequence, item.FrameVOILUTSequence = [transformation], [voi]
        return item

    stored = np.full((2, 1, 1), 50, np.uint16)
    path = write(
        "a", stored, frames=2, PerFrameFunctionalGroupsSequence=[group(0, 50), group(25, 50)]
    )
    assert show(path)[:, 0, 0, 0].tolist() == [128, 191]  # 0.5 and 0.75
