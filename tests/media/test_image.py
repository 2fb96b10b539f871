"""Image files as they come: depths, orientations, palettes, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2unet_core.errors import DataError
from sam2unet_core.media import image as media
from sam2unet_core.media.image import (
    image_files,
    overlay,
    read_image,
    read_mask,
    read_probability,
    write_image,
    write_mask,
    write_probability,
)
from sam2unet_core.task import TaskClass

CODE = ("SCT", "1", "thing")
POLYP = TaskClass(1, "polyp", "Polyp", CODE, CODE, None, (200, 30, 40))
VESSEL = TaskClass(2, "vessel", "Vessel", CODE, CODE, None, (10, 220, 30))


@pytest.fixture
def pixels() -> np.ndarray:
    """No two pixels alike, so that any turn or flip shows."""
    return np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "PNG", "TIFF"])
def test_lossless_colour_comes_back_as_it_was(
    tmp_path: Path, pixels: np.ndarray, suffix: str
) -> None:
    path = tmp_path / f"frame.{suffix}"
    Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(read_image(path), pixels)


def test_jpeg_comes_back_nearly_as_it_was(tmp_path: Path) -> None:
    pixels = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "frame.jpg", quality=95)
    found = read_image(tmp_path / "frame.jpg")
    assert np.abs(found.astype(int) - pixels).max() <= 3


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [  # EXIF 2.3, tag 0x0112: where row 0 and column 0 of the stored pixels belong
        (1, lambda p: p),
        (2, lambda p: p[:, ::-1]),
        (3, lambda p: p[::-1, ::-1]),
        (4, lambda p: p[::-1]),
        (5, lambda p: p.swapaxes(0, 1)),
        (6, lambda p: np.rot90(p, -1)),
        (7, lambda p: p[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda p: np.rot90(p, 1)),
    ],
)
def test_exif_orientation_turns_image_and_mask_alike(
    tmp_path: Path, pixels: np.ndarray, orientation: int, upright
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "frame.png", exif=exif)
    labels = np.zeros((5, 7), np.uint8)
    labels[0, :3] = 255
    Image.fromarray(labels).save(tmp_path / "mask.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "frame.png"), upright(pixels))
    expected = (upright(labels) > 0).astype(np.uint8)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", [POLYP]), expected)


def test_sixteen_bit_grey_is_scaled_by_depth_and_not_by_content(tmp_path: Path) -> None:
    grey = np.array([[0, 257, 25700]], np.uint16)  # 257 * k is k of 255
    for name in ("a.png", "a.tif"):
        Image.fromarray(grey).save(tmp_path / name)
        found = read_image(tmp_path / name)
        np.testing.assert_array_equal(found[0], [[0] * 3, [1] * 3, [100] * 3])


def test_grey_palette_one_bit_and_alpha_become_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.array([[7, 9]], np.uint8)).save(tmp_path / "grey.png")
    palette = Image.fromarray(np.array([[1, 0]], np.uint8))
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bits.png")
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    assert read_image(tmp_path / "grey.png").tolist() == [[[7] * 3, [9] * 3]]
    assert read_image(tmp_path / "palette.png").tolist() == [[[4, 5, 6], [1, 2, 3]]]
    assert read_image(tmp_path / "bits.png").tolist() == [[[255] * 3, [0] * 3]]
    assert read_image(tmp_path / "alpha.png").tolist() == [
        [[200, 100, 50], [0, 0, 0], [40, 20, 10]]
    ]


def test_damaged_files_are_named_with_the_reason(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("cut.jpg", "cut.png"):
        Image.fromarray(noise).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=rf"{name}: cannot be decoded .*truncated"):
            read_image(tmp_path / name)
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "void.png").touch()
    with pytest.raises(DataError, match=r"text\.png: not a supported image"):
        read_image(tmp_path / "text.png")
    with pytest.raises(DataError, match=r"void\.png: the file is empty"):
        read_mask(tmp_path / "void.png", [POLYP])
    with pytest.raises(DataError, match=r"nowhere\.png: no such file"):
        read_image(tmp_path / "nowhere.png")


def test_several_frames_and_floating_point_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((4, 4), v, np.uint8)) for v in (10, 200)]
    for name in ("two.gif", "two.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(DataError, match="holds 2 frames"):
            read_image(tmp_path / name)
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match="floating-point"):
        read_image(tmp_path / "float.tif")


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"bomb\.png: too large to open safely"):
        read_image(tmp_path / "bomb.png")


def test_a_mask_is_written_in_colour_and_read_back_by_index(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    write_mask(tmp_path / "m.png", labels, [POLYP, VESSEL])
    with Image.open(tmp_path / "m.png") as file:
        assert file.mode == "P"
        np.testing.assert_array_equal(np.array(file), labels)
        seen = np.array(file.convert("RGB"))
    assert seen[0].tolist() == [[0, 0, 0], [200, 30, 40], [10, 220, 30]]
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", [POLYP, VESSEL]), labels)


def test_a_label_of_no_class_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"values \[2\].*with \[0, 1\]"):
        write_mask(tmp_path / "m.png", np.full((2, 2), 2, np.uint8), [POLYP])
    assert list(tmp_path.iterdir()) == []


def test_probabilities_keep_sixteen_bits(tmp_path: Path) -> None:
    probability = np.array([[0.0, 0.5, 1.0, 1 / 3]], np.float32)
    write_probability(tmp_path / "p.png", probability)
    with Image.open(tmp_path / "p.png") as file:
        assert np.array(file).tolist() == [[0, 32768, 65535, 21845]]
    found = read_probability(tmp_path / "p.png")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, probability, atol=0.5 / 65535 + 1e-7)
    Image.fromarray(np.array([[0, 51, 255]], np.uint8)).save(tmp_path / "p8.png")
    np.testing.assert_allclose(read_probability(tmp_path / "p8.png"), [[0, 0.2, 1]], atol=1e-7)
    with pytest.raises(DataError, match="from 0 to 1"):
        write_probability(tmp_path / "q.png", probability * 2)
    with pytest.raises(DataError, match="from 0 to 1"):
        write_probability(tmp_path / "q.png", probability * np.float32(np.nan))
    write_image(tmp_path / "rgb.png", np.eye(3, dtype=np.uint8)[None] * 9)
    with pytest.raises(DataError, match="probability map is 8-bit or 16-bit grey"):
        read_probability(tmp_path / "rgb.png")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mask(tmp_path / "m.png", np.zeros((2, 2), np.uint8), [POLYP])
    before = (tmp_path / "m.png").read_bytes()

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(media.Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_mask(tmp_path / "m.png", np.ones((2, 2), np.uint8), [POLYP])
    assert [path.name for path in tmp_path.iterdir()] == ["m.png"]
    assert (tmp_path / "m.png").read_bytes() == before


def test_overlay_draws_an_opaque_contour_around_a_translucent_fill() -> None:
    pixels = np.full((20, 20, 3), 100, np.uint8)
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 1
    found = overlay(pixels, labels, [POLYP])
    assert found[0, 0].tolist() == [100, 100, 100]
    assert found[5, 5].tolist() == [200, 30, 40]
    assert found[10, 10].tolist() == [130, 79, 82]  # 0.7 * 100 + 0.3 * (200, 30, 40)
    assert (pixels == 100).all()
    with pytest.raises(DataError, match="do not match a frame"):
        overlay(pixels, labels[:10], [POLYP])


def test_image_files_are_found_below_in_either_case_but_not_hidden(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/c.jpeg", "a/._c.jpeg", ".git/d.png", "notes.txt", "e.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)]
    assert found == ["a/c.jpeg", "b.PNG", "e.tif"]
