"""Every way masks are stored in the field: read rightly, or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2unet_core.errors import DataError
from sam2unet_core.media.image import read_mask
from sam2unet_core.task import TaskClass

CODE = ("SCT", "1", "thing")
ONE = [TaskClass(1, "polyp", "Polyp", CODE, CODE, None, (200, 30, 40))]
TWO = [*ONE, TaskClass(2, "vessel", "Vessel", CODE, CODE, None, (10, 220, 30))]
Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write an array as an image; a palette makes it a palette image."""

    def write(values: object, *, name: str = "mask.png", palette: list[int] | None = None) -> Path:
        array = np.array(values)
        image = Image.fromarray(array if array.dtype != np.int64 else array.astype(np.uint8))
        if palette is not None:
            image.putpalette(palette)
        image.save(tmp_path / name, **({"quality": 95} if name.endswith("jpg") else {}))
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("stored", "labels"),
    [
        ([[0, 1, 1]], [[0, 1, 1]]),
        ([[0, 255, 255]], [[0, 1, 1]]),
        ([[0, 127, 128]], [[0, 0, 1]]),
        ([[0, 0, 0]], [[0, 0, 0]]),
        ([[1, 1, 1]], [[1, 1, 1]]),
        ([[255, 255, 255]], [[1, 1, 1]]),
        ([[True, False, True]], [[1, 0, 1]]),
    ],
)
def test_grey_masks_of_one_class(save: Save, stored: object, labels: object) -> None:
    assert read_mask(save(stored), ONE).tolist() == labels


@pytest.mark.parametrize(
    "stored", [[[0, 1]], [[0, 255]], [[0, 65535]], [[0, 32768]], [[32767, 32768]]]
)
def test_sixteen_bit_masks_of_one_class(save: Save, stored: object) -> None:
    for name in ("mask.png", "mask.tif"):
        path = save(np.array(stored, np.uint16), name=name)
        assert read_mask(path, ONE).tolist() == [[0, 1]]


def test_values_that_name_no_class_are_refused_and_listed(save: Save) -> None:
    with pytest.raises(DataError, match="values 0, 7; expected 0/1, 0/255"):
        read_mask(save([[0, 7]]), ONE)
    with pytest.raises(DataError, match="values 1, 2, 3;"):
        read_mask(save([[1, 2, 3]]), ONE)
    with pytest.raises(DataError, match="values 0, 255; expected the indices 0 background, 1 pol"):
        read_mask(save([[0, 255]]), TWO)
    with pytest.raises(DataError, match="values 0, 1, 2, 3;"):
        read_mask(save([[0, 1, 2, 3]]), TWO)


def test_255_next_to_1_may_mean_unlabelled_and_is_refused(save: Save) -> None:
    with pytest.raises(DataError, match="values 0, 1, 255"):
        read_mask(save([[0, 1, 255]]), ONE)


def test_indices_of_two_classes(save: Save) -> None:
    assert read_mask(save([[0, 1, 2]]), TWO).tolist() == [[0, 1, 2]]
    assert read_mask(save(np.array([[0, 1, 2]], np.uint16)), TWO).tolist() == [[0, 1, 2]]


def test_palette_by_index_whatever_its_colours(save: Save) -> None:
    path = save([[0, 1, 2]], palette=[0, 0, 0, 128, 0, 0, 0, 128, 0])
    assert read_mask(path, TWO).tolist() == [[0, 1, 2]]
    white_ground = save([[0, 1, 1]], palette=[255, 255, 255, 255, 0, 0])
    assert read_mask(white_ground, ONE).tolist() == [[0, 1, 1]]


def test_palette_by_colour_where_indices_name_no_class(save: Save) -> None:
    ramp = [value for value in range(256) for _ in range(3)]
    assert read_mask(save([[0, 255]], palette=ramp), ONE).tolist() == [[0, 1]]
    with pytest.raises(DataError, match="values 0, 7"):
        read_mask(save([[0, 7]], palette=ramp), ONE)
    three = [0, 0, 0, 128, 0, 0, 0, 128, 0]
    with pytest.raises(DataError, match=r"\(palette indices 0, 1, 2\): mask with the colours"):
        read_mask(save([[0, 1, 2]], palette=three), ONE)
    colours = [0, 0, 0] + [9, 9, 9] * 4 + [10, 220, 30] + [200, 30, 40]
    assert read_mask(save([[0, 5, 6]], palette=colours), TWO).tolist() == [[0, 2, 1]]


def test_an_inverted_palette_is_read_as_it_looks(save: Save) -> None:
    path = save([[0, 1, 1]], palette=[255, 255, 255, 0, 0, 0])
    assert read_mask(path, ONE).tolist() == [[1, 0, 0]]


def test_gif_masks(save: Save) -> None:
    assert read_mask(save([[0, 255, 0]], name="mask.gif"), ONE).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("value", [1, 128, 255])
def test_rgb_greys(save: Save, value: int) -> None:
    assert read_mask(save([[[0, 0, 0], [value] * 3]]), ONE).tolist() == [[0, 1]]


def test_rgb_in_the_colours_of_the_classes(save: Save) -> None:
    path = save([[[0, 0, 0], [200, 30, 40], [10, 220, 30]]])
    assert read_mask(path, TWO).tolist() == [[0, 1, 2]]


def test_one_class_in_any_one_colour_on_black(save: Save) -> None:
    assert read_mask(save([[[0, 0, 0], [0, 0, 90]]]), ONE).tolist() == [[0, 1]]
    with pytest.raises(DataError, match=r"colours \(0, 0, 0\), \(0, 0, 90\), \(90, 0, 0\); exp"):
        read_mask(save([[[0, 0, 0], [0, 0, 90], [90, 0, 0]]]), ONE)
    with pytest.raises(DataError, match=r"or the colours black, polyp \(200, 30, 40\)"):
        read_mask(save([[[0, 0, 0], [0, 0, 90]]]), TWO)


def test_transparent_pixels_are_background(save: Save) -> None:
    path = save([[[255, 255, 255, 0], [255, 255, 255, 255]]])
    assert read_mask(path, ONE).tolist() == [[0, 1]]


def test_a_photograph_is_no_mask(save: Save) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for name in ("mask.png", "mask.jpg"):
        with pytest.raises(DataError, match=r"colours \(.* and \d+ more; expected"):
            read_mask(save(noise, name=name), ONE)


def test_jpeg_masks_lose_their_greys_and_keep_their_shape(save: Save) -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[20:45, 13:50] = 1
    for stored in (labels * 255, np.repeat((labels * 255)[..., None], 3, axis=2)):
        found = read_mask(save(stored, name="mask.jpg"), ONE)
        np.testing.assert_array_equal(found, labels)


def test_dark_values_in_a_jpeg_are_refused_as_they_may_be_class_indices(save: Save) -> None:
    noise = np.random.default_rng(0).integers(0, 9, (32, 32), dtype=np.uint8)
    with pytest.raises(DataError, match="JPEG mask with the values"):
        read_mask(save(noise, name="mask.jpg"), ONE)
    with pytest.raises(DataError, match="JPEG mask with the values"):
        read_mask(save(np.full((8, 8), 90), name="mask.jpg"), ONE)


def test_class_indices_in_a_jpeg_are_refused(save: Save) -> None:
    with pytest.raises(DataError, match="JPEG changes class values: save the masks as PNG"):
        read_mask(save(np.full((8, 8), 2), name="mask.jpg"), TWO)


def test_real_masks_read_as_their_readme_says(shared_data: Path) -> None:
    data = shared_data / "data"
    polyp = sorted((data / "kvasir_seg" / "masks").iterdir())[0]
    grey = np.array(Image.open(polyp).convert("L"))
    np.testing.assert_array_equal(read_mask(polyp, ONE), grey > 127)
    nerve = sorted((data / "nerve_ultrasound" / "masks").iterdir())[0]
    np.testing.assert_array_equal(read_mask(nerve, TWO), np.array(Image.open(nerve)))
    vessels = sorted((data / "drive_retina" / "masks").iterdir())[0]
    np.testing.assert_array_equal(read_mask(vessels, ONE), np.array(Image.open(vessels)) == 255)
