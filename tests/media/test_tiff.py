"""TIFF of every depth and layout, written bit by bit: what is seen, what masks hold, cut files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from sam2unet_core.errors import DataError
from sam2unet_core.media.image import picture_series, read_image, read_mask, read_picture
from sam2unet_core.task import TaskClass
from sam2unet_core.types import Series, Skipped

CODE = ("SCT", "1", "thing")
ONE = [TaskClass(1, "polyp", "Polyp", CODE, CODE, None, (200, 30, 40))]
TWO = [*ONE, TaskClass(2, "vessel", "Vessel", CODE, CODE, None, (10, 220, 30))]
ROWS, COLUMNS = 6, 10
SHARE = np.random.default_rng(0).random((ROWS, COLUMNS, 3))
SHARE[0, 0], SHARE[0, 1] = 0, 1
"""Colours from 0 to 1; the first of the three as greys."""


def packed(samples: np.ndarray, bits: int, order: str) -> bytes:
    """Return rows of samples as bits without gaps, each row filled up to a byte."""
    if bits == 16:
        return samples.astype(order + "u2").tobytes()
    rows = samples.reshape(len(samples), -1).astype(np.uint32)
    spread = rows[..., None] >> np.arange(bits - 1, -1, -1) & 1
    return b"".join(np.packbits(row.ravel()).tobytes() for row in spread.astype(np.uint8))


def write(path: Path, samples: np.ndarray, *, bits: int, photometric: int, order: str = "<",
          tags: dict[int, tuple[int, ...]] | None = None, following: int = 0,
          planes: bool = False, deflated: bool = False) -> Path:  # fmt: skip
    """Write samples `(H, W)` or `(H, W, C)`; `planes` stores channel after channel."""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    parts = [samples[..., c] for c in range(channels)] if planes else [samples]
    strips = [packed(part, bits, order) for part in parts]
    strips = [zlib.compress(strip) for strip in strips] if deflated else strips
    short: dict[int, tuple[int, ...]] = {
        256: (samples.shape[1],), 257: (samples.shape[0],), 258: (bits,) * channels,
        259: (8 if deflated else 1,), 262: (photometric,), 277: (channels,),
        278: (samples.shape[0],), 284: (1 + planes,), **(tags or {})}  # fmt: skip
    entries = {tag: struct.pack(f"{order}{len(v)}H", *v) for tag, v in short.items()}
    lengths = [len(strip) for strip in strips]
    entries[279] = struct.pack(f"{order}{len(strips)}I", *lengths)
    entries[273] = bytes(4 * len(strips))
    begin = 8 + 2 + 12 * len(entries) + 4
    data = begin + sum(len(v) for v in entries.values() if len(v) > 4)
    starts = [data + sum(lengths[:n]) for n in range(len(strips))]
    entries[273] = struct.pack(f"{order}{len(strips)}I", *starts)
    directory, extra = b"", b""
    for tag, value in sorted(entries.items()):
        kind, size = (4, 4) if tag in (273, 279) else (3, 2)
        directory += struct.pack(order + "HHI", tag, kind, len(value) // size)
        if len(value) <= 4:
            directory += value.ljust(4, b"\0")
        else:
            directory += struct.pack(order + "I", begin + len(extra))
            extra += value
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    count, last = struct.pack(order + "H", len(entries)), struct.pack(order + "I", following)
    path.write_bytes(head + count + directory + last + extra + b"".join(strips))
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14, 16])
def test_greys_of_any_depth_are_seen_by_their_depth(tmp_path, bits, photometric, order) -> None:
    full = 2**bits - 1
    stored = np.rint(SHARE[..., 0] * full).astype(np.uint16)
    path = write(tmp_path / "a.tif", stored, bits=bits, photometric=photometric, order=order)
    shown = full - stored.astype(int) if photometric == 0 else stored.astype(int)
    picture = read_picture(path)
    expected = np.rint(shown / full * 255)
    np.testing.assert_array_equal(picture.pixels, np.repeat(expected[..., None], 3, axis=2))
    assert picture.cautions == ()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14, 16])
def test_masks_of_any_depth_are_read_as_they_are_seen(tmp_path, bits, photometric, order) -> None:
    labels = (SHARE[..., 0] > 0.5).astype(np.uint16)
    full = 2**bits - 1
    for value in (1, full):
        stored = full - labels * value if photometric == 0 else labels * value
        path = write(tmp_path / "m.tif", stored, bits=bits, photometric=photometric, order=order)
        np.testing.assert_array_equal(read_mask(path, ONE), labels)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_are_looked_up_and_their_indices_are_class_values(tmp_path, bits, order) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (3, 2**bits))
    indices = (SHARE[..., 0] * (2**bits - 0.01)).astype(np.uint16)
    palette = {320: tuple((colours * 257).ravel().tolist())}
    path = write(tmp_path / "a.tif", indices, bits=bits, photometric=3, order=order, tags=palette)
    np.testing.assert_array_equal(read_image(path), colours.T[indices])
    labels = indices % min(2**bits, 3)
    path = write(tmp_path / "m.tif", labels, bits=bits, photometric=3, order=order, tags=palette)
    np.testing.assert_array_equal(read_mask(path, TWO), labels)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_colours_are_seen_whatever_their_layout(tmp_path, bits, planes, deflated, order) -> None:
    stored = np.rint(SHARE * (2**bits - 1)).astype(np.uint16)
    path = write(tmp_path / "a.tif", stored, bits=bits, photometric=2, order=order, planes=planes,
                 deflated=deflated)  # fmt: skip
    expected = np.rint(stored / (2**bits - 1) * 255)
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("photometric", [0, 1, 2])
@pytest.mark.parametrize(("kind", "shown"), [(0, 200), (1, 200), (2, 50)])
def test_an_alpha_of_16_bits_counts_once(tmp_path, photometric, kind, shown) -> None:
    channels = 4 if photometric == 2 else 2
    stored = np.full((2, 3, channels), 65535 - 51400 if photometric == 0 else 51400)
    stored[..., -1] = 16384  # a quarter
    path = write(tmp_path / "a.tif", stored, bits=16, photometric=photometric,
                 tags={338: (kind,)})  # fmt: skip
    assert np.unique(read_image(path)).tolist() == [shown]  # colours of kind 1 are multiplied


def test_a_mask_that_is_the_alpha_of_16_bits(tmp_path) -> None:
    labels = (SHARE[..., 0] > 0.5).astype(np.uint16)
    stored = np.stack([np.full_like(labels, 65535), labels * 65535], axis=2)
    path = write(tmp_path / "m.tif", stored, bits=16, photometric=1, tags={338: (2,)})
    np.testing.assert_array_equal(read_mask(path, ONE), labels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("bits", "channels"), [(12, 1), (16, 2), (16, 3)])
def test_what_pillow_does_not_know_is_turned_upright(tmp_path, bits, channels, orientation) -> None:
    upright = {1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1],
               4: lambda p: p[::-1], 5: lambda p: p.swapaxes(0, 1), 6: lambda p: np.rot90(p, -1),
               7: lambda p: p[::-1, ::-1].swapaxes(0, 1), 8: np.rot90}  # fmt: skip
    full = 2**bits - 1
    colours = np.rint(SHARE * full).astype(np.uint16)[..., : 3 if channels == 3 else 1]
    stored = {1: colours[..., 0], 2: np.dstack([colours, np.full(SHARE.shape[:2], full)]),
              3: colours}[channels]  # fmt: skip
    path = write(tmp_path / "a.tif", stored, bits=bits, photometric=2 if channels == 3 else 1,
                 order=">", planes=channels == 3, tags={274: (orientation,), 338: (2,)}
                 if channels == 2 else {274: (orientation,)})  # fmt: skip
    shown = np.broadcast_to(np.rint(colours / full * 255), SHARE.shape)
    np.testing.assert_array_equal(read_image(path), upright[orientation](shown))
    series = picture_series(path, source_path=tmp_path, relative="a.tif")
    assert isinstance(series, Series)
    assert (series.rows, series.columns) == upright[orientation](shown).shape[:2]


@pytest.mark.parametrize(("bits", "channels", "planes", "deflated"), [
    (8, 1, False, False), (8, 3, False, True), (12, 1, False, False), (16, 1, False, True),
    (16, 2, False, False), (16, 3, True, False), (16, 3, True, True)])  # fmt: skip
def test_a_tiff_cut_anywhere_is_truncated(tmp_path, bits, channels, planes, deflated) -> None:
    stored = np.random.default_rng(2).integers(0, 2**bits, (60, 50, channels))
    path = write(tmp_path / "a.tif", stored[..., 0] if channels == 1 else stored, bits=bits,
                 photometric=2 if channels == 3 else 1, order=">", planes=planes,
                 deflated=deflated)  # fmt: skip
    whole = path.read_bytes()
    for length in (6, 60, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        found = picture_series(path, source_path=tmp_path, relative="a.tif")
        if isinstance(found, Series):
            told: list[str] = []
            assert list(found.frames(on_error=lambda _, e: told.append(e.reason))) == []  # noqa: B023
            assert told == ["truncated"]
        else:
            assert found.reason == "truncated"


def test_more_than_one_picture_and_too_many_pixels_are_refused(tmp_path, monkeypatch) -> None:
    stored = np.zeros((4, 4), np.uint16)
    path = write(tmp_path / "a.tif", stored, bits=12, photometric=1, order=">", following=8192)
    with pytest.raises(DataError, match=r"a\.tif: holds several frames"):
        read_image(path)
    path = write(tmp_path / "b.tif", stored, bits=12, photometric=1, order=">")
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 4)
    with pytest.raises(DataError, match="too large to open safely"):
        read_image(path)


def test_colours_of_12_bits_and_inks_of_16_are_refused_with_the_reason(tmp_path) -> None:
    for name, bits, photometric, channels in (("a.tif", 12, 2, 3), ("b.tif", 16, 5, 4)):
        stored = np.zeros((4, 4, channels), np.uint16)
        path = write(tmp_path / name, stored, bits=bits, photometric=photometric)
        found = picture_series(path, source_path=tmp_path, relative=name)
        if isinstance(found, Skipped):
            assert "not a supported image" in found.message
        with pytest.raises(DataError, match=f"{name}: "):
            read_image(path)
