"""Every compressed transfer syntax decodes to what was compressed; a broken stream is an error."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from sam2unet_core.dicom import open_study, scan
from sam2unet_core.errors import InputError
from sam2unet_core.task import Window
from sam2unet_core.types import Skipped

JPEG = "1.2.840.10008.1.2.4."
GREYS = np.random.default_rng(0).integers(0, 256, (48, 64), np.uint8)
SMOOTH = (np.add.outer(np.arange(48), np.arange(64)) * 2).astype(np.uint8)
COLOURS = np.stack([SMOOTH, 255 - SMOOTH, np.roll(SMOOTH, 9, 1)], 2)


def lossless(pixels: np.ndarray) -> bytes:
    raw = imagecodecs.JPEG8.CS.RGB if pixels.ndim == 3 else None
    return bytes(imagecodecs.jpeg8_encode(pixels, colorspace=raw, outcolorspace=raw, lossless=True))


def pillow(pixels: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=98, **options)
    return stream.getvalue()


def packbits(pixels: np.ndarray) -> bytes:
    """RLE of PS3.5 annex G by hand: each plane a segment of literal runs."""
    planes = [pixels] if pixels.ndim == 2 else list(np.moveaxis(pixels, 2, 0))
    segments = []
    for plane in planes:
        rows = plane.tobytes()
        runs = [rows[i : i + 128] for i in range(0, len(rows), 128)]
        coded = b"".join(bytes([len(run) - 1]) + run for run in runs)
        segments.append(coded + b"\0" * (len(coded) % 2))
    offsets = [64 + sum(map(len, segments[:i])) for i in range(len(segments))]
    head = [len(segments), *offsets]
    return b"".join(n.to_bytes(4, "little") for n in head).ljust(64, b"\0") + b"".join(segments)


def deflate(pixels: np.ndarray) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(pixels.tobytes()) + packer.flush()


EXACT: dict[str, tuple[str, Callable[[np.ndarray], bytes]]] = {
    "JPEG lossless 14": (f"{JPEG}57", lossless),
    "JPEG lossless 14 SV1": (f"{JPEG}70", lossless),
    "JPEG-LS": (f"{JPEG}80", lambda p: bytes(imagecodecs.jpegls_encode(p))),
    "JPEG 2000": (f"{JPEG}90", lambda p: bytes(imagecodecs.jpeg2k_encode(p, level=0))),
    "HTJ2K": (f"{JPEG}201", lambda p: bytes(imagecodecs.htj2k_encode(p, reversible=True))),
    "JPEG XL": (f"{JPEG}110", lambda p: bytes(imagecodecs.jpegxl_encode(p, lossless=True))),
    "RLE": ("1.2.840.10008.1.2.5", packbits),
    "deflated frames": ("1.2.840.10008.1.2.8.1", deflate),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("pixels", [GREYS, COLOURS], ids=["grey", "colour"])
def test_a_lossless_syntax_gives_back_what_was_compressed(write, show, name, pixels) -> None:
    syntax, encode = EXACT[name]
    path = write(
        "a.dcm",
        pixels,
        syntax=UID(syntax),
        colour=pixels.ndim == 3,
        pixel_data=encapsulate([encode(pixels)]),
    )
    found = show(path)[0]
    expected = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, 2)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("syntax", "encode", "tolerance"),
    [
        (f"{JPEG}50", pillow, 3),
        (f"{JPEG}55", lambda p: pillow(p, progressive=True), 3),
        (f"{JPEG}81", lambda p: bytes(imagecodecs.jpegls_encode(p, level=2)), 2),
        (f"{JPEG}91", lambda p: bytes(imagecodecs.jpeg2k_encode(p, level=60)), 3),
    ],
)
def test_a_lossy_syntax_comes_close(write, show, syntax, encode, tolerance) -> None:
    path = write("a.dcm", SMOOTH, syntax=UID(syntax), pixel_data=encapsulate([encode(SMOOTH)]))
    found = show(path)[0, ..., 0].astype(int)
    assert np.abs(found - SMOOTH).max() <= tolerance


@pytest.mark.parametrize("signed", [False, True])
def test_twelve_bits_of_jpeg_are_seen_whole(write, show, signed) -> None:
    stored = (np.arange(48 * 64).reshape(48, 64) % 4096).astype(np.uint16)
    stream = bytes(imagecodecs.jpeg8_encode(stored, bitspersample=12, level=100))
    path = write(
        "a.dcm",
        stored,
        syntax=UID(f"{JPEG}51"),
        pixel_data=encapsulate([stream]),
        BitsStored=12,
        HighBit=11,
        PixelRepresentation=int(signed),
        WindowCenter=0 if signed else 2048,
        WindowWidth=4096,
        VOILUTFunction="LINEAR_EXACT",
    )
    shown = show(path)[0, ..., 0].astype(int)
    values = np.where(stored >= 2048, stored - 4096.0, stored) if signed else stored.astype(float)
    expected = np.clip(np.rint(((values - (0 if signed else 2048)) / 4096 + 0.5) * 255), 0, 255)
    inside = np.abs(values % 4096 - 2048) > 16 if signed else np.ones(values.shape, bool)
    assert np.abs(shown - expected)[inside].max() <= 1  # loss at the jump of the sign is loss


def test_itk_sees_the_same_picture_in_a_lossless_stream(write, show) -> None:
    stream = lossless(GREYS)
    path = write("a.dcm", GREYS, syntax=UID(f"{JPEG}70"), pixel_data=encapsulate([stream]))
    np.testing.assert_array_equal(
        show(path)[0, ..., 1], sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0]
    )


READ = """
import sys
from sam2unet_core.dicom import open_study, scan
for path in sys.argv[1:]:
    for series in open_study(path):
        list(series.frames(on_error=lambda index, error: print(error.reason)))
print("alive")
"""


def test_broken_streams_of_every_syntax_are_errors_and_never_end_the_process(write) -> None:
    draw = np.random.default_rng(1)
    paths = []
    for number, (syntax, encode) in enumerate(EXACT.values()):
        whole = encode(GREYS)
        for kind in range(12):
            broken = bytearray(whole)
            for place in draw.integers(2, len(whole), 1 + 4 * kind):
                broken[place] = int(draw.integers(0, 256))
            data = encapsulate([bytes(broken[: len(whole) - 40 * (kind % 3)])])
            paths.append(write(f"{number}-{kind}.dcm", GREYS, syntax=UID(syntax), pixel_data=data))
    command = [sys.executable, "-c", READ, *map(str, paths)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert run.returncode == 0, run.stderr
    told = run.stdout.split()
    assert told[-1] == "alive"
    assert set(told[:-1]) <= {"corrupt", "truncated", "unsupported_transfer_syntax"}
    assert len(told) > 40


@pytest.mark.parametrize("cut", [0.5, 0.8])  # CharLS takes seconds for others
@pytest.mark.parametrize("name", EXACT)
def test_a_stream_that_ends_early_is_never_a_whole_picture(write, name, cut) -> None:
    syntax, encode = EXACT[name]
    whole = encode(SMOOTH if name != "RLE" else GREYS)
    data = encapsulate([whole[: int(len(whole) * cut)]])
    path = write("a.dcm", GREYS, syntax=UID(syntax), pixel_data=data)
    (series,) = open_study(path)
    told: list[str] = []
    assert list(series.frames(on_error=lambda _, error: told.append(error.reason))) == []
    assert told in (["truncated"], ["corrupt"])


@pytest.mark.parametrize("stated", [f"{JPEG}50", f"{JPEG}80", f"{JPEG}90"])
@pytest.mark.parametrize("name", ["JPEG lossless 14 SV1", "JPEG-LS", "JPEG 2000", "JPEG XL"])
def test_a_stream_of_another_kind_than_stated_is_read_and_told(write, stated, name) -> None:
    _, encode = EXACT[name]
    data = encapsulate([encode(COLOURS)])
    path = write("a.dcm", COLOURS, syntax=UID(stated), colour=True, pixel_data=data)
    (series,) = open_study(path)
    (frame,) = series.frames()
    np.testing.assert_array_equal(frame.pixels, COLOURS)
    family = {f"{JPEG}50": "JPEG lossless 14 SV1", f"{JPEG}80": "JPEG-LS", f"{JPEG}90": "JPEG 2000"}
    expected = [] if family[stated] == name else ["value_ignored"]
    assert [each.code for each in frame.cautions] == expected


def test_compressed_frames_that_are_stated_to_be_none_are_refused(write) -> None:
    path = write("a.dcm", GREYS, syntax=UID(f"{JPEG}80"), pixel_data=encapsulate([b"\xff\xd8\xff"]))
    content = path.read_bytes().replace(f"{JPEG}80".encode(), b"1.2.840.10008.1.2.1\0\0\0", 1)
    path.write_bytes(content)
    (found,) = scan(path)
    assert isinstance(found, Skipped)
    assert "encapsulated, which Explicit VR Little Endian does not allow" in found.message


@pytest.mark.parametrize(("photometric", "said"), [("RGB", 1), ("MONOCHROME2", 3)])
def test_a_number_of_samples_that_cannot_be_is_replaced_and_told(write, photometric, said) -> None:
    pixels = COLOURS if photometric == "RGB" else GREYS
    path = write("a.dcm", pixels, colour=photometric == "RGB", SamplesPerPixel=said)
    (series,) = open_study(path)
    (frame,) = series.frames()
    expected = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, 2)
    np.testing.assert_array_equal(frame.pixels, expected)
    assert [each.code for each in series.instances[0].cautions] == ["value_ignored"]


@pytest.mark.parametrize("encode", [pillow, lossless, lambda p: pillow(p, progressive=True)])
@pytest.mark.parametrize("pixels", [GREYS, COLOURS], ids=["grey", "colour"])
def test_pixels_that_libjpeg_makes_up_are_told(write, encode, pixels) -> None:
    whole = encode(pixels)
    half = whole[: len(whole) * 2 // 3] + b"\xff\xd9"  # it ends like a whole one
    for stream, healthy in ((whole, True), (half, False)):
        path = write("a.dcm", pixels, syntax=UID(f"{JPEG}50"), colour=pixels.ndim == 3,
                     pixel_data=encapsulate([stream]))  # fmt: skip
        (series,) = open_study(path)
        errors: list[InputError] = []
        frames = list(series.frames(on_error=lambda _, error, kept=errors: kept.append(error)))
        told = [each.reason for each in errors]
        told += [each.code for frame in frames for each in frame.cautions]
        assert ("pixels_concealed" in told or "corrupt" in told) is not healthy


def test_a_whole_jpeg_without_its_last_marker_is_read(write, show) -> None:
    whole = pillow(SMOOTH)
    assert whole.endswith(b"\xff\xd9")
    pictures = [
        show(write(name, SMOOTH, syntax=UID(f"{JPEG}50"), pixel_data=encapsulate([stream])))
        for name, stream in (("a.dcm", whole), ("b.dcm", whole[:-2]))
    ]
    np.testing.assert_array_equal(*pictures)


def test_an_unknown_transfer_syntax_is_named(write) -> None:
    path = write("a.dcm", GREYS, syntax=UID(f"{JPEG}94"), pixel_data=encapsulate([b"\0" * 8]))
    (series,) = open_study(path)
    told: list[str] = []
    list(series.frames(on_error=lambda _, error: told.append(f"{error.reason} {error}")))
    assert told[0].startswith("unsupported_transfer_syntax a.dcm: the transfer syntax JPIP")


def test_the_tasks_window_reaches_a_compressed_slice(write, show) -> None:
    stored = np.array([[0, 1000, 2000, 3000]], np.uint16)
    stream = bytes(imagecodecs.jpegls_encode(stored))
    path = write("a.dcm", stored, syntax=UID(f"{JPEG}80"), pixel_data=encapsulate([stream]),
                 Modality="CT", RescaleSlope=1, RescaleIntercept=-1000)  # fmt: skip
    (series,) = open_study(path)
    (frame,) = series.frames(window=Window(center=0, width=2001))
    assert frame.pixels[0, :, 0].tolist() == [0, 128, 255, 255]
