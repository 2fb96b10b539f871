"""What is shown for every way of labelling and marking the colours of a compressed frame."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from sam2unet_core.dicom import open_study

JPEG = "1.2.840.10008.1.2.4."
BASELINE, LOSSLESS, LS, J2K = (f"{JPEG}{n}" for n in (50, 70, 80, 90))
RLE = "1.2.840.10008.1.2.5"
NUMBERS, LETTERS, SMALL, ODD = (1, 2, 3), (82, 71, 66), (114, 103, 98), (0, 1, 2)
JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
ADOBE = {n: b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([n]) for n in (0, 1)}


def picture() -> np.ndarray:
    """A red disc on dark mucosa, the way endoscopes see it, with black corners."""
    y, x = np.mgrid[:96, :128]
    pixels = np.stack([90 + x / 4, 40 + y / 4, 30 + (x + y) / 8], 2)
    pixels[(x - 50) ** 2 + (y - 40) ** 2 < 400] = (210, 60, 50)
    pixels[(x - 64) ** 2 + (y - 48) ** 2 > 60**2] = 2
    return pixels.astype(np.uint8)


def coded(stored: str, *, marker: bytes, ids: tuple[int, ...], lossless: bool) -> bytes:
    """Return a JPEG stream of the picture in RGB or YCbCr, with these markers and identifiers."""
    pixels = picture()
    if stored == "ybr":
        pixels = np.array(Image.fromarray(pixels).convert("YCbCr"))
    raw = imagecodecs.JPEG8.CS.RGB
    stream = bytes(
        imagecodecs.jpeg8_encode(
            pixels, 98, colorspace=raw, outcolorspace=raw, lossless=lossless, subsampling="444"
        )
    )
    place, out = 2, stream[:2] + marker
    while True:
        kind, length = stream[place + 1], int.from_bytes(stream[place + 2 : place + 4], "big")
        part = bytearray(stream[place : place + 2 + length])
        if kind in (0xC0, 0xC1, 0xC3):
            part[10], part[13], part[16] = ids
        if kind == 0xDA:
            part[5], part[7], part[9] = ids
            return out + bytes(part) + stream[place + 2 + length :]
        if kind not in (0xE0, 0xEE):
            out += bytes(part)
        place += 2 + length


TABLE = [
    # photometric, marker, ids, syntax, stored, corrected
    ("RGB", b"", NUMBERS, BASELINE, "ybr", True),
    ("RGB", b"", ODD, BASELINE, "ybr", True),
    ("RGB", b"", NUMBERS, LOSSLESS, "ybr", True),
    ("RGB", b"", NUMBERS, BASELINE, "rgb", False),
    ("RGB", b"", NUMBERS, LOSSLESS, "rgb", False),
    ("RGB", b"", LETTERS, BASELINE, "rgb", False),
    ("RGB", b"", LETTERS, LOSSLESS, "rgb", False),
    ("RGB", b"", SMALL, BASELINE, "rgb", False),
    ("RGB", JFIF, NUMBERS, BASELINE, "ybr", True),
    ("RGB", JFIF, NUMBERS, LOSSLESS, "ybr", True),
    ("RGB", ADOBE[1], NUMBERS, BASELINE, "ybr", True),
    ("RGB", ADOBE[1], NUMBERS, LOSSLESS, "ybr", True),
    ("RGB", ADOBE[0], NUMBERS, BASELINE, "rgb", False),
    ("RGB", ADOBE[0], LETTERS, LOSSLESS, "rgb", False),
    ("YBR_FULL_422", b"", NUMBERS, BASELINE, "ybr", False),
    ("YBR_FULL_422", JFIF, NUMBERS, BASELINE, "ybr", False),
    ("YBR_FULL_422", ADOBE[1], NUMBERS, BASELINE, "ybr", False),
    ("YBR_FULL_422", ADOBE[0], NUMBERS, BASELINE, "rgb", True),
    ("YBR_FULL_422", b"", LETTERS, BASELINE, "rgb", True),
    ("YBR_FULL", b"", SMALL, BASELINE, "rgb", True),
    ("YBR_FULL", b"", NUMBERS, BASELINE, "ybr", False),
    ("YBR_FULL", b"", NUMBERS, LOSSLESS, "ybr", False),
    ("YBR_FULL", b"", NUMBERS, LOSSLESS, "rgb", True),
    ("YBR_FULL", ADOBE[0], LETTERS, LOSSLESS, "rgb", True),
]


@pytest.mark.parametrize(("photometric", "marker", "ids", "syntax", "stored", "corrected"), TABLE)
def test_a_jpeg_is_shown_as_it_says_and_a_wrong_label_is_told(
    write, photometric, marker, ids, syntax, stored, corrected
) -> None:
    stream = coded(stored, marker=marker, ids=ids, lossless=syntax == LOSSLESS)
    path = write(
        "a.dcm",
        picture(),
        colour=True,
        syntax=UID(syntax),
        pixel_data=encapsulate([stream]),
        PhotometricInterpretation=photometric,
    )
    (series,) = open_study(path)
    (frame,) = series.frames()
    off = np.abs(frame.pixels.astype(int) - picture())
    assert off.mean() < 2.5
    assert frame.pixels[40, 50].tolist() == pytest.approx([210, 60, 50], abs=6)  # red, not green
    codes = [each.code for each in frame.cautions]
    assert codes == (["photometric_corrected"] if corrected else [])


def test_coarser_colours_are_never_taken_for_rgb(write, show) -> None:
    # A grey of 128 could be either; a stream whose second components are coarser cannot be RGB.
    pixels = np.full((32, 32, 3), (140, 120, 110), np.uint8)
    stream = bytes(imagecodecs.jpeg8_encode(pixels, 98, subsampling="420"))
    stream = stream.replace(JFIF, b"", 1)
    path = write(
        "a.dcm", pixels, colour=True, syntax=UID(BASELINE), pixel_data=encapsulate([stream])
    )
    assert np.abs(show(path)[0].astype(int) - pixels).max() <= 2


@pytest.mark.parametrize("syntax", [LS, RLE, J2K])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_other_syntaxes_hold_what_the_header_says(write, show, syntax, photometric) -> None:
    pixels = picture()
    if photometric == "YBR_FULL":
        pixels = np.array(Image.fromarray(pixels).convert("YCbCr"))
    if syntax == LS:
        stream = bytes(imagecodecs.jpegls_encode(pixels))
    elif syntax == J2K:
        stream = bytes(imagecodecs.jpeg2k_encode(pixels, level=0, mct=False))
    else:
        from tests.dicom.test_codecs import packbits

        stream = packbits(pixels)
    path = write(
        "a.dcm",
        pixels,
        colour=True,
        syntax=UID(syntax),
        pixel_data=encapsulate([stream]),
        PhotometricInterpretation=photometric,
    )
    assert np.abs(show(path)[0].astype(int) - picture()).max() <= 3  # the matrix is rounded twice


@pytest.mark.parametrize("photometric", ["YBR_RCT", "RGB", "YBR_FULL"])
def test_jpeg_2000_with_a_colour_transform_gives_rgb(write, photometric) -> None:
    stream = bytes(imagecodecs.jpeg2k_encode(picture(), level=0, mct=True))
    path = write(
        "a.dcm",
        picture(),
        colour=True,
        syntax=UID(J2K),
        pixel_data=encapsulate([stream]),
        PhotometricInterpretation=photometric,
    )
    (series,) = open_study(path)
    (frame,) = series.frames()
    np.testing.assert_array_equal(frame.pixels, picture())
    assert bool(frame.cautions) == (photometric == "YBR_FULL")


@pytest.mark.parametrize("colour", [False, True])
def test_another_number_of_components_than_labelled_is_shown_and_told(write, colour) -> None:
    pixels = picture() if not colour else picture()[..., 0].copy()
    stream = bytes(imagecodecs.jpegls_encode(pixels))
    path = write(
        "a.dcm", picture() if colour else pixels[..., 0].copy(), colour=colour, syntax=UID(LS),
        pixel_data=encapsulate([stream]),
    )  # fmt: skip
    (series,) = open_study(path)
    (frame,) = series.frames()
    expected = np.repeat(pixels[:, :, None], 3, 2) if colour else pixels
    np.testing.assert_array_equal(frame.pixels, expected)
    assert [each.code for each in frame.cautions] == ["photometric_corrected"]


def test_reddish_rgb_without_black_and_without_markers_stays_as_labelled(write) -> None:
    y, x = np.mgrid[:64, :64]
    pixels = np.stack([170 + x / 4, 95 + y / 5, 80 + (x + y) / 9], 2).astype(np.uint8)
    raw = imagecodecs.JPEG8.CS.RGB
    streams = []
    for shift in (0, 3, 9):
        stream = bytes(imagecodecs.jpeg8_encode(np.roll(pixels, shift, 1), 98, colorspace=raw,
                                                outcolorspace=raw, subsampling="444"))  # fmt: skip
        streams.append(_unmarked(stream))
    path = write("a.dcm", np.stack([pixels] * 3), frames=3, syntax=UID(BASELINE), colour=True,
                 pixel_data=encapsulate(streams))  # fmt: skip
    (series,) = open_study(path)
    for frame, shift in zip(series.frames(), (0, 3, 9), strict=True):
        assert np.abs(frame.pixels.astype(int) - np.roll(pixels, shift, 1)).mean() < 2
        assert frame.cautions == ()


def _unmarked(stream: bytes) -> bytes:
    """Take the marker of Adobe out, and number the components."""
    place = stream.index(b"\xff\xee")
    length = int.from_bytes(stream[place + 2 : place + 4], "big")
    out = bytearray(stream[:place] + stream[place + 2 + length :])
    frame, scan = out.index(b"\xff\xc0"), out.index(b"\xff\xda")
    for number in range(3):
        out[frame + 10 + 3 * number] = out[scan + 5 + 2 * number] = number + 1
    return bytes(out)


@pytest.mark.parametrize("frames", [1, 2])
def test_full_components_that_are_labelled_sub_sampled_are_shown_right(write, frames) -> None:
    stored = np.array(Image.fromarray(picture()).convert("YCbCr"))
    values = np.stack([stored] * frames) if frames > 1 else stored
    path = write("a.dcm", values, frames=frames if frames > 1 else None, colour=True,
                 PhotometricInterpretation="YBR_FULL_422")  # fmt: skip
    (series,) = open_study(path)
    shown = list(series.frames())
    assert len(shown) == frames
    for frame in shown:
        assert np.abs(frame.pixels.astype(int) - picture()).max() <= 3
    assert [each.code for each in series.instances[0].cautions] == ["photometric_corrected"]


def test_colours_that_are_labelled_grey_are_shown_by_the_length_of_the_data(write) -> None:
    path = write("a.dcm", picture(), colour=True, PhotometricInterpretation="MONOCHROME2")
    (series,) = open_study(path)
    (frame,) = series.frames()
    np.testing.assert_array_equal(frame.pixels, picture())
    assert [each.code for each in series.instances[0].cautions] == ["photometric_corrected"]
