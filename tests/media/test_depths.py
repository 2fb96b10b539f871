"""Pictures of any depth and photometric interpretation, from files written sample by sample."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from sam2unet_core.errors import DataError, InputError
from sam2unet_core.media.image import picture_series, read_image, read_mask, read_picture
from sam2unet_core.task import TaskClass, Window
from sam2unet_core.types import Series, Skipped

CODE = ("SCT", "1", "thing")
ONE = [TaskClass(1, "polyp", "Polyp", CODE, CODE, None, (200, 30, 40))]
TWO = [*ONE, TaskClass(2, "vessel", "Vessel", CODE, CODE, None, (10, 220, 30))]
GREYS = np.array([[0, 1, 100], [128, 200, 255]], np.uint8)
"""As they are to be seen."""
COLOURS = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3) * 10

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's colour type by channels: grey, grey and alpha, RGB, RGB and alpha."""


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def write_png(path: Path, samples: np.ndarray, *, bits: int, before: bytes = b"",
              after: bytes = b"") -> Path:  # fmt: skip
    """Write samples `(H, W)` or `(H, W, C)` of 1, 2, 4, 8 or 16 bits; chunks before and after."""
    rows, columns = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    flat = samples.reshape(rows, -1).astype(np.uint16)
    if bits < 8:
        spread = flat[..., None] >> np.arange(bits - 1, -1, -1) & 1
        lines = [np.packbits(line.ravel()).tobytes() for line in spread.astype(np.uint8)]
    else:
        lines = [line.astype(">u2" if bits == 16 else "u1").tobytes() for line in flat]
    head = struct.pack(">IIBBBBB", columns, rows, bits, COLOUR_TYPES[channels], 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + line for line in lines))
    parts = (chunk(b"IHDR", head), before, chunk(b"IDAT", data), after, chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def write_tiff(path: Path, samples: np.ndarray, *, photometric: int, order: str = "<",
               tags: dict[int, tuple[int, ...]] | None = None) -> Path:  # fmt: skip
    """Write samples `(H, W)` or `(H, W, C)` uncompressed, in their own dtype and a byte order.

    `tags` are more of type SHORT, such as 274 (orientation), 338 (extra samples).
    """
    rows, columns = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    bits = samples.dtype.itemsize * 8
    entries = {256: (columns,), 257: (rows,), 258: (bits,) * channels, 259: (1,),
               262: (photometric,), 277: (channels,), 278: (rows,),
               339: (kind,) * channels, **(tags or {})}  # fmt: skip
    count = len(entries) + 2
    place = 8 + 2 + 12 * count + 4
    ifd, extra = b"", b""
    for tag in sorted([*entries, 273, 279]):
        if tag in (273, 279):
            ifd += struct.pack(order + "HHII", tag, 4, 1, 0 if tag == 273 else len(data))
            strips = len(ifd) - 4 if tag == 273 else strips  # noqa: F821 - 273 comes first
            continue
        values = struct.pack(f"{order}{len(entries[tag])}H", *entries[tag])
        if len(values) <= 4:
            ifd += struct.pack(order + "HHI", tag, 3, len(entries[tag])) + values.ljust(4, b"\0")
        else:
            ifd += struct.pack(order + "HHII", tag, 3, len(entries[tag]), place + len(extra))
            extra += values
    start = struct.pack(order + "I", place + len(extra))
    ifd = ifd[:strips] + start + ifd[strips + 4 :]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    body = struct.pack(order + "H", count) + ifd + bytes(4) + extra
    path.write_bytes(head + body + data)
    return path


def seen(path: Path) -> list[list[int]]:
    pixels = read_image(path)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].tolist()


def codes(path: Path) -> list[str]:
    return [caution.code for caution in read_picture(path).cautions]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("photometric", [0, 1])
def test_a_grey_tiff_is_seen_alike_whatever_is_stored_as_zero(
    tmp_path, order, dtype, photometric
) -> None:
    full = np.iinfo(dtype).max
    shown = GREYS.astype(dtype) * dtype(full // 255)
    stored = full - shown if photometric == 0 else shown
    path = write_tiff(tmp_path / "a.tif", stored, photometric=photometric, order=order)
    assert seen(path) == GREYS.tolist()
    assert codes(path) == []


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("scale", [1, 257])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_colour_tiff_keeps_its_colours(tmp_path, order, scale, alpha) -> None:
    samples = COLOURS.astype(np.uint16) * scale if scale > 1 else COLOURS
    tags = None
    if alpha:
        full = np.full((2, 4, 1), np.iinfo(samples.dtype).max, samples.dtype)
        samples, tags = np.concatenate([samples, full], axis=2), {338: (2,)}
    path = write_tiff(tmp_path / "a.tif", samples, photometric=2, order=order, tags=tags)
    np.testing.assert_array_equal(read_image(path), COLOURS)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["grey8", "grey16", "white16", "rgb8", "rgb16"])
def test_a_tiff_is_turned_upright_at_any_depth(tmp_path, orientation, kind) -> None:
    upright = {1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1],
               4: lambda p: p[::-1], 5: lambda p: p.swapaxes(0, 1), 6: lambda p: np.rot90(p, -1),
               7: lambda p: p[::-1, ::-1].swapaxes(0, 1), 8: np.rot90}  # fmt: skip
    shown = COLOURS if kind.startswith("rgb") else COLOURS[..., 1]
    stored = shown if kind.endswith("8") else shown.astype(np.uint16) * 257
    stored = 65535 - stored if kind == "white16" else stored
    photometric = {"g": 1, "w": 0, "r": 2}[kind[0]]
    order = ">" if kind == "white16" else "<"
    path = write_tiff(tmp_path / "a.tif", stored, photometric=photometric, order=order,
                      tags={274: (orientation,)})  # fmt: skip
    expected = upright[orientation](shown)
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(path), expected)
    series = picture_series(path, source_path=tmp_path, relative="a.tif")
    assert isinstance(series, Series)
    assert (series.rows, series.columns) == expected.shape[:2]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_16_bits_is_rounded_not_cut_to_8(tmp_path, channels) -> None:
    samples = np.full((1, 2, channels), 65535, np.uint16)
    samples[0, 0, : 1 if channels < 3 else 3] = 1000 * np.arange(1, (channels > 2) * 2 + 2)
    path = write_png(tmp_path / "a.png", samples.squeeze(2) if channels == 1 else samples, bits=16)
    # 1000 / 257 = 3.89, 2000 / 257 = 7.78, 3000 / 257 = 11.67
    expected = [4, 8, 12] if channels > 2 else [4, 4, 4]
    assert read_image(path).tolist() == [[expected, [255] * 3]]


def test_what_is_transparent_in_16_bits_shows_black(tmp_path) -> None:
    grey_alpha = np.array([[[40000, 65535], [40000, 0], [51400, 13107]]], np.uint16)
    path = write_png(tmp_path / "la.png", grey_alpha, bits=16)
    assert seen(path) == [[156, 0, 40]]  # 155.6; 200 at a fifth
    key = chunk(b"tRNS", struct.pack(">H", 40000))
    path = write_png(tmp_path / "l.png", np.array([[40000, 51400]]), bits=16, before=key)
    assert seen(path) == [[0, 200]]
    key = chunk(b"tRNS", struct.pack(">HHH", 25700, 51400, 771))
    rgb = np.array([[[25700, 51400, 771], [25700, 51400, 1028]]])
    path = write_png(tmp_path / "rgb.png", rgb, bits=16, before=key)
    assert read_image(path).tolist() == [[[0, 0, 0], [100, 200, 4]]]


@pytest.mark.parametrize(("bits", "greys"), [(1, [0, 255]), (2, [0, 85, 170, 255]),
                                             (4, [0, 17, 255])])  # fmt: skip
def test_few_bits_span_black_to_white(tmp_path, bits, greys) -> None:
    stored = np.array([greys]) // (255 // (2**bits - 1))
    assert seen(write_png(tmp_path / "a.png", stored, bits=bits)) == [greys]


TWELVE = np.array([[0, 1000, 2047, 4095]], np.uint16)
AS_TWELVE = [[0, 62, 127, 255]]  # 62.27, 127.47


def test_12_bits_in_16_are_seen_by_the_depth_that_a_png_states(tmp_path) -> None:
    stated = chunk(b"sBIT", bytes([12]))
    low = write_png(tmp_path / "low.png", TWELVE, bits=16, before=stated)
    high = write_png(tmp_path / "high.png", TWELVE << 4, bits=16, before=stated)
    spread = write_png(tmp_path / "spread.png", TWELVE << 4 | TWELVE >> 8, bits=16, before=stated)
    for path in (low, high, spread):
        assert seen(path) == AS_TWELVE
        assert codes(path) == []
    dark = write_png(tmp_path / "dark.png", np.array([[0, 160, 1600]]), bits=16, before=stated)
    assert seen(dark) == [[0, 1, 6]]  # 10 and 100 of 4095, scaled up as PNG asks for


def test_12_bits_in_16_are_seen_by_the_depth_that_a_tiff_states(tmp_path) -> None:
    path = write_tiff(tmp_path / "a.tif", TWELVE, photometric=1, tags={281: (4095,)})
    assert seen(path) == AS_TWELVE
    assert codes(path) == []


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_12_bits_in_16_that_nobody_states_are_seen_with_a_caution(tmp_path, name) -> None:
    Image.fromarray(TWELVE).save(tmp_path / name)
    assert seen(tmp_path / name) == AS_TWELVE
    (caution,) = read_picture(tmp_path / name).cautions
    assert caution.code == "window_guessed"
    assert "from 0 to 4095" in caution.message
    assert "as 12 bits" in caution.message


def test_ct_values_around_the_middle_of_16_bits_are_seen_over_their_range(tmp_path) -> None:
    stored = np.array([[32768 - 1024, 32768, 32768 + 1024]], np.uint16)
    Image.fromarray(stored).save(tmp_path / "a.png")
    assert seen(tmp_path / "a.png") == [[0, 128, 255]]
    assert codes(tmp_path / "a.png") == ["window_guessed"]


def test_pictures_that_lose_nothing_are_scaled_by_their_depth_without_a_word(tmp_path) -> None:
    ramp = np.linspace(0, 20000, 60).astype(np.uint16)[None]
    for number, stored in enumerate((np.array([[0, 257, 2570]]), np.zeros((2, 2)), ramp)):
        path = tmp_path / f"{number}.png"
        Image.fromarray(stored.astype(np.uint16)).save(path)
        assert seen(path) == np.rint(stored / 257).tolist()
        assert codes(path) == []


def test_a_window_that_cannot_be_applied_is_told(tmp_path) -> None:
    window = Window(40, 400)
    Image.fromarray(np.array([[0, 40000]], np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.array([[0, 200]], np.uint8)).save(tmp_path / "shown.png")
    (caution,) = read_picture(tmp_path / "deep.png", window=window).cautions
    assert caution.code == "window_guessed"
    assert "Hounsfield" in caution.message
    assert read_picture(tmp_path / "shown.png", window=window).cautions == ()
    series = picture_series(tmp_path / "deep.png", source_path=tmp_path, relative="deep.png")
    assert isinstance(series, Series)
    (frame,) = series.frames(window=window)
    assert frame.cautions == (caution,)


@pytest.mark.parametrize(("dtype", "match"), [
    (np.int16, "values from -5 to 300"), (np.float32, "floating-point"),
    (np.int32, "values from -5 to 300")])  # fmt: skip
def test_signed_and_floating_point_samples_are_refused(tmp_path, dtype, match) -> None:
    stored = np.array([[-5, 300]], dtype)
    path = write_tiff(tmp_path / "a.tif", stored, photometric=1)
    with pytest.raises(DataError, match=match):
        read_image(path)


def test_what_no_decoder_reads_is_refused_by_name(tmp_path) -> None:
    inks = np.zeros((2, 4, 4), np.uint16)
    path = write_tiff(tmp_path / "cmyk.tif", inks, photometric=5)
    with pytest.raises(DataError, match=r"cmyk\.tif: "):
        read_image(path)


LONG_TEXT = b"history\0\0" + zlib.compress(b"step " * 400_000)


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_png_is_read_however_long_its_text(tmp_path, where, name) -> None:
    content = LONG_TEXT
    if name == b"iTXt":
        content = b"history\0\1\0\0\0" + zlib.compress(b"step " * 400_000)
    if name == b"iCCP" and where == "after":
        where = "before"
    path = write_png(tmp_path / "a.png", GREYS, bits=8, **{where: chunk(name, content)})
    assert seen(path) == GREYS.tolist()
    series = picture_series(path, source_path=tmp_path, relative="a.png")
    assert isinstance(series, Series)
    assert (series.rows, series.columns) == GREYS.shape


def test_a_png_with_long_text_is_no_way_around_the_largest_size(tmp_path, monkeypatch) -> None:
    path = write_png(tmp_path / "a.png", GREYS, bits=8, before=chunk(b"zTXt", LONG_TEXT))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    with pytest.raises(DataError, match="too large to open safely"):
        read_image(path)


@pytest.mark.parametrize(("name", "length"), [
    ("a.png", 5), ("a.png", 20), ("a.jpg", 100), ("a.jpg", 2), ("a.tif", 6), ("a.gif", 8),
    ("a.bmp", 20), ("a.webp", 20), ("a.webp", 40), ("a.jp2", 60), ("a.avif", 100),
    ("a.pgm", 4), ("a.j2k", 20)])  # fmt: skip
def test_a_picture_cut_within_its_header_is_truncated(tmp_path, name, length) -> None:
    path = tmp_path / name
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:length])
    found = picture_series(path, source_path=tmp_path, relative=name)
    assert isinstance(found, Skipped)
    assert found.reason == "truncated"
    assert str(tmp_path) not in found.message


def test_a_bare_jpeg_2000_cut_within_its_pixels_is_truncated(tmp_path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / "a.j2k"
    Image.fromarray(noise).save(path)
    for length in (300, 2000):
        path.write_bytes(path.read_bytes()[:-length])
        series = picture_series(path, source_path=tmp_path, relative="a.j2k")
        assert isinstance(series, Series)
        with pytest.raises(InputError, match="truncated") as caught:
            list(series.frames())
        assert caught.value.reason == "truncated"


def test_what_is_no_picture_is_corrupt(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture at all, but long enough")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"garbage " * 1000)
    for name in ("a.png", "b.png"):
        found = picture_series(tmp_path / name, source_path=tmp_path, relative=name)
        assert isinstance(found, Skipped)
        assert found.reason == "corrupt"


@pytest.mark.parametrize("name", ["a.webp", "a.avif", "a.gif"])
def test_moving_pictures_are_refused(tmp_path, name) -> None:
    frames = [Image.fromarray(np.full((16, 16, 3), v, np.uint8)) for v in (10, 200)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="holds 2 frames"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("name", ["a.webp", "a.jp2", "a.ppm", "a.pnm"])
def test_lossless_pictures_of_other_formats_come_back_as_they_were(tmp_path, name) -> None:
    options = {"lossless": True} if name == "a.webp" else {}
    Image.fromarray(COLOURS).save(tmp_path / name, **options)
    np.testing.assert_array_equal(read_image(tmp_path / name), COLOURS)


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["a.jp2", "a.pnm"])
def test_all_bits_of_jpeg_2000_and_pnm_count(tmp_path, name, channels, bits) -> None:
    full = 2**bits - 1
    stored = np.linspace(0, full, 32 * 32 * channels).astype(np.uint16)
    stored = stored.reshape(32, 32, channels)
    path = written(tmp_path / name, stored, full)
    expected = np.broadcast_to(np.rint(stored / full * 255), (32, 32, 3))
    np.testing.assert_array_equal(read_image(path), expected)
    labels = np.zeros((32, 32, channels), np.uint16)
    labels[8:20, 8:20], labels[22:30, 22:30] = 1, 2
    path = written(tmp_path / name, labels, full)
    np.testing.assert_array_equal(read_mask(path, TWO), labels[..., 0])
    path = written(tmp_path / name, (labels > 0).astype(np.uint16) * full, full)
    if bits == 16 or channels == 1:
        np.testing.assert_array_equal(read_mask(path, ONE), labels[..., 0] > 0)


def written(path: Path, samples: np.ndarray, full: int) -> Path:
    if path.suffix == ".jp2":
        coded = imagecodecs.jpeg2k_encode(
            samples.squeeze(), level=0, reversible=True, bitspersample=full.bit_length()
        )
        path.write_bytes(coded)
    else:
        head = f"P{5 if samples.shape[2] == 1 else 6}\n# by hand\n32 32\n{full}\n"
        path.write_bytes(head.encode() + samples.astype(">u2").tobytes())
    return path


def test_a_dark_picture_whose_file_states_12_bits_is_not_guessed(tmp_path) -> None:
    path = written(tmp_path / "a.pnm", np.full((32, 32, 1), 410), 4095)
    assert np.unique(read_image(path)).tolist() == [26]  # 25.5
    assert codes(path) == []


def test_floating_point_pnm_is_refused(tmp_path) -> None:
    (tmp_path / "a.pnm").write_bytes(b"Pf\n2 1\n-1.0\n" + np.ones(2, "<f4").tobytes())
    with pytest.raises(DataError, match="floating-point"):
        read_image(tmp_path / "a.pnm")


# Masks: what is stored is what comes out.

LABELS = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("value", ["index", "full"])
def test_a_mask_of_a_grey_tiff_is_read_as_it_is_seen(
    tmp_path, order, dtype, photometric, value
) -> None:
    full = np.iinfo(dtype).max
    shown = LABELS.astype(dtype) * dtype(1 if value == "index" else full)
    stored = full - shown if photometric == 0 else shown
    path = write_tiff(tmp_path / "m.tif", stored, photometric=photometric, order=order)
    assert read_mask(path, ONE).tolist() == LABELS.tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_class_indices_with_white_as_zero_are_indices(tmp_path, dtype) -> None:
    path = write_tiff(tmp_path / "m.tif", LABELS.astype(dtype), photometric=0)
    assert read_mask(path, ONE).tolist() == LABELS.tolist()
    path = write_tiff(tmp_path / "m.tif", LABELS.astype(dtype) * dtype(2), photometric=0)
    assert read_mask(path, TWO).tolist() == (LABELS * 2).tolist()
    path = write_tiff(tmp_path / "m.tif", np.zeros((2, 2), dtype), photometric=0)
    with pytest.raises(DataError, match="zeros alone, stored with white as zero"):
        read_mask(path, ONE)
    assert not read_mask(path, TWO).any()


@pytest.mark.parametrize("bits", [2, 4])
def test_class_indices_in_few_bits_are_indices(tmp_path, bits) -> None:
    path = write_png(tmp_path / "m.png", np.array([[0, 1, 2]]), bits=bits)
    assert read_mask(path, TWO).tolist() == [[0, 1, 2]]
    path = write_png(tmp_path / "m.png", np.array([[0, 2**bits - 1]]), bits=bits)
    assert read_mask(path, ONE).tolist() == [[0, 1]]
    path = write_png(tmp_path / "m.png", np.array([[0, 1, 2**bits - 1]]), bits=bits)
    with pytest.raises(DataError, match=f"values 0, 1, {2**bits - 1}"):
        read_mask(path, ONE)


def test_class_indices_in_a_pgm_are_indices(tmp_path) -> None:
    (tmp_path / "m.pgm").write_bytes(b"P5\n# by hand\n3 1\n3\n\0\1\2")
    assert read_mask(tmp_path / "m.pgm", TWO).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize(("bits", "value"), [(8, 1), (8, 2), (16, 1), (16, 2), (16, 514)])
def test_class_indices_beside_an_opaque_alpha_or_in_three_channels_are_indices(
    tmp_path, channels, bits, value
) -> None:
    samples = np.repeat((LABELS.astype(np.uint16) * value)[..., None], channels, axis=2)
    if channels != 3:
        samples[..., -1] = 2**bits - 1
    path = write_png(tmp_path / "m.png", samples, bits=bits)
    assert read_mask(path, TWO).tolist() == (LABELS * (2 if value == 514 else value)).tolist()


def test_the_classes_colours_in_16_bits(tmp_path) -> None:
    colours = np.array([[[0, 0, 0], [200, 30, 40], [10, 220, 30]]], np.uint16)
    for scale in (1, 256, 257):
        path = write_png(tmp_path / "m.png", colours * scale, bits=16)
        assert read_mask(path, TWO).tolist() == [[0, 1, 2]]
    path = write_png(tmp_path / "m.png", colours * 100, bits=16)
    with pytest.raises(DataError, match="16-bit colours from 0 to 22000"):
        read_mask(path, TWO)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colour", [0, 0.5, 1])
def test_the_transparency_of_one_colour_is_the_mask(tmp_path, bits, colour) -> None:
    full = 2**bits - 1
    for channels in (2, 4):
        samples = np.full((*LABELS.shape, channels), int(colour * full), np.uint16)
        samples[..., -1] = LABELS.astype(np.uint16) * full
        path = write_png(tmp_path / "m.png", samples, bits=bits)
        assert read_mask(path, ONE).tolist() == LABELS.tolist()
        samples[0, 0, -1], samples[0, 1, -1] = full // 4, full * 3 // 4  # a soft edge
        path = write_png(tmp_path / "m.png", samples, bits=bits)
        assert read_mask(path, ONE).tolist() == LABELS.tolist()


def test_colours_behind_an_alpha_that_hides_them_are_refused(tmp_path) -> None:
    samples = np.zeros((1, 2, 4), np.uint8)
    samples[0, 1, :3] = 255
    with pytest.raises(DataError, match="all of which are transparent"):
        read_mask(write_png(tmp_path / "m.png", samples, bits=8), ONE)
    samples[0, :, 3] = 0
    samples[0, :, :3] = 0
    assert not read_mask(write_png(tmp_path / "m.png", samples, bits=8), ONE).any()


def test_half_transparent_class_values_are_refused(tmp_path) -> None:
    samples = np.array([[[1, 255], [2, 128], [0, 255]]], np.uint8)
    with pytest.raises(DataError, match="half-transparent pixels \\(alpha 128\\)"):
        read_mask(write_png(tmp_path / "m.png", samples, bits=8), TWO)


def test_transparent_pixels_are_background_whatever_their_colour(tmp_path) -> None:
    samples = np.array([[[200, 30, 40, 255], [10, 220, 30, 0], [0, 0, 0, 255]]], np.uint8)
    assert read_mask(write_png(tmp_path / "m.png", samples, bits=8), TWO).tolist() == [[1, 0, 0]]


def test_a_palettes_transparent_entry_is_the_background_and_an_index_an_index(tmp_path) -> None:
    def saved(indices: list[int], palette: list[int], transparency: int | bytes) -> Path:
        image = Image.fromarray(np.array([indices], np.uint8))
        image.putpalette(palette)
        image.save(tmp_path / "m.png", transparency=transparency)
        return tmp_path / "m.png"

    black_on_nothing = saved([0, 1, 1], [255, 255, 255, 0, 0, 0], 0)
    assert read_mask(black_on_nothing, ONE).tolist() == [[0, 1, 1]]
    shown_clear = saved([0, 1, 2], [0, 0, 0, 9, 9, 9, 8, 8, 8], b"\xff\x00\x80")
    assert read_mask(shown_clear, TWO).tolist() == [[0, 1, 2]]
    colours = [71, 112, 76] + [9, 9, 9] * 4 + [10, 220, 30] + [200, 30, 40]
    by_colour = saved([0, 5, 6], colours, 0)
    assert read_mask(by_colour, TWO).tolist() == [[0, 2, 1]]


def test_significant_bits_leave_a_mask_as_it_is_stored(tmp_path) -> None:
    stated = chunk(b"sBIT", bytes([12]))
    for value in (1, 4095, 4095 << 4):
        path = write_png(tmp_path / "m.png", np.array([[0, value]]), bits=16, before=stated)
        assert read_mask(path, ONE).tolist() == [[0, 1]]
    path = write_png(tmp_path / "m.png", LABELS, bits=8, before=chunk(b"sBIT", b"\1"))
    assert read_mask(path, ONE).tolist() == LABELS.tolist()


@pytest.mark.parametrize("name", ["m.jpg", "m.webp", "m.avif", "m.jp2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_class_indices_that_lost_their_values_are_refused_never_empty(
    tmp_path, name, channels
) -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[8:56, 8:56] = 1
    pixels = labels if channels == 1 else np.repeat(labels[..., None], 3, axis=2)
    options = {"irreversible": True, "quality_layers": [2]} if name == "m.jp2" else {"quality": 90}
    Image.fromarray(pixels).save(tmp_path / name, **options)
    if not np.asarray(Image.open(tmp_path / name)).any():
        pytest.fail("the compression has left nothing, so that nothing is tested")
    with pytest.raises(DataError, match="mask with the"):
        read_mask(tmp_path / name, ONE)


def test_an_empty_jpeg_is_an_empty_mask(tmp_path) -> None:
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "m.jpg")
    assert not read_mask(tmp_path / "m.jpg", ONE).any()
