"""What is learnt from is what the network will see, or it is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2unet_core.data import check_samples, read_dataset
from sam2unet_core.data.samples import read_sample
from sam2unet_core.errors import DataError
from sam2unet_core.media.image import picture_series
from sam2unet_core.monai_parts import LoadFramed
from sam2unet_core.task import Task, Window
from sam2unet_core.types import Series

Pair = Callable[..., None]
TWELVE_BITS = (np.arange(12 * 16).reshape(12, 16) * 4095 // 191).astype(np.uint16)


@pytest.fixture
def image(tmp_path: Path, add: Pair) -> Path:
    """The picture of a data set of one; to be overwritten."""
    add("a", image=".png")
    return tmp_path / "images" / "a.png"


def refused(image: Path, task: Task, match: str) -> None:
    """Hold that the check before a training and the loader refuse the file by its name."""
    samples = read_dataset(image.parents[1])
    with pytest.raises(DataError, match=match) as caught:
        check_samples(samples, task)
    assert "a.png" in str(caught.value)
    with pytest.raises(DataError, match=match):
        LoadFramed(task)({"image": str(image)})


def test_12_bits_in_16_are_refused_as_every_picture_would_be_guessed(image, task) -> None:
    Image.fromarray(TWELVE_BITS).save(image)
    refused(image, task, "the file does not state their depth.*Save the pictures with 8 bit")


def test_more_than_8_bits_are_refused_where_the_task_has_a_window(image, task) -> None:
    Image.fromarray(TWELVE_BITS * 16).save(image)
    refused(image, replace(task, window=Window(40, 400)), "Hounsfield.*the window applied")


@pytest.mark.parametrize("scale", [16, 257])
def test_16_bits_that_are_used_are_what_inference_sees(image, task, scale) -> None:
    stored = TWELVE_BITS * 16 if scale == 16 else (TWELVE_BITS // 16) * 257
    Image.fromarray(stored.astype(np.uint16)).save(image)
    series = picture_series(image, source_path=image.parent, relative="a.png")
    assert isinstance(series, Series)
    (frame,) = series.frames(window=task.window)
    np.testing.assert_array_equal(read_sample(image, task), frame.pixels)
    np.testing.assert_array_equal(frame.pixels[..., 0], np.rint(stored / 257))
    loaded = LoadFramed(task)({"image": str(image)})["image"]
    np.testing.assert_array_equal(loaded.numpy(), frame.pixels.transpose(2, 0, 1))
    check_samples(read_dataset(image.parents[1]), task)


def test_8_bits_are_taken_whatever_the_task_shows(image, task) -> None:
    check_samples(read_dataset(image.parents[1]), replace(task, window=Window(40, 400)))
