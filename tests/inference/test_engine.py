"""Frames through the network in order, decoded ahead by a bounded number."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from sam2unet_core.inference.engine import to_result
from sam2unet_core.inference.threads import in_background
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.task import Window, load_preset
from sam2unet_core.types import Frame, Instance, Series


class Bright(torch.nn.Module):
    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return 10 * frames[:, :1]


class Squares:
    """Ten frames; the n-th has a bright square of side n. Frames 5 to 9 are wider."""

    def __init__(self) -> None:
        self.windows: list[Window | None] = []

    def frames(self, series, *, indices, window, on_error) -> Iterator[Frame]:
        self.windows.append(window)
        for index in range(10) if indices is None else indices:
            pixels = np.full((64, 64 if index < 5 else 96, 3), 20, np.uint8)
            pixels[1 : 1 + index, 1 : 1 + index] = 255
            yield Frame(pixels, index, 0, index + 1)

    def dataset(self, series, instance_index):
        return None


@pytest.fixture
def series(tmp_path) -> Series:
    return Series("video", (Instance(tmp_path / "v"),), Squares(), tmp_path, "v", 64, 64, 10)


@pytest.fixture
def segmenter() -> Segmenter:
    task = replace(load_preset("polyp"), image_size=(64, 64), window=Window(40, 400))
    return Segmenter(task, Bright(), device="cpu")


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_results_come_in_order_with_their_own_frames(series, segmenter, batch_size):
    results = list(segmenter.segment(series, batch_size=batch_size))
    assert [result.frame.index for result in results] == list(range(10))
    for result in results[:5]:
        assert result.labels.sum() == result.frame.index**2
        assert result.masks.shape == (1, 64, 64)
    assert {result.labels.shape for result in results} == {(64, 64), (64, 96)}


def test_chosen_frames_are_taken_and_the_tasks_window_is_used(series, segmenter):
    found = segmenter.segment(series, indices=range(0, 10, 4))
    assert [result.frame.index for result in found] == [0, 4, 8]
    assert series.source.windows == [Window(40, 400)]


def test_min_area_and_threshold_of_the_task_are_kept_to(segmenter):
    (item,) = segmenter.task.classes
    task = replace(segmenter.task, classes=(replace(item, min_area_px=5),), threshold=0.7)
    probabilities = np.zeros((1, 20, 20), np.float32)
    probabilities[0, 1:3, 1:3] = 0.9  # four pixels: too small
    probabilities[0, 10:13, 10:13] = 0.8
    probabilities[0, 10, 10] = 0.6
    frame = Frame(np.zeros((20, 20, 3), np.uint8), 0, 0, 1)
    result = to_result(frame, probabilities, task)
    assert result.labels.sum() == result.masks.sum() == 8


def test_overlapping_classes_stay_apart_and_the_likeliest_wins_the_label_map():
    task = replace(load_preset("nerve_ultrasound"), peak_threshold=0.0)
    probabilities = np.zeros((2, 8, 8), np.float32)
    probabilities[0, :4] = 0.6
    probabilities[1, 2:6] = 0.8
    result = to_result(Frame(np.zeros((8, 8, 3), np.uint8), 0, 0, 1), probabilities, task)
    assert result.masks[0].sum() == result.masks[1].sum() == 32
    assert result.labels[:, 0].tolist() == [1, 1, 2, 2, 2, 2, 0, 0]


def test_decoding_runs_ahead_by_no_more_than_the_limit():
    made: list[int] = []
    enough = threading.Event()

    def source() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 4:
                enough.set()
            yield number

    with in_background(source(), limit=3) as ahead:
        assert next(ahead) == 0
        assert enough.wait(10)  # one taken, three waiting, one in hand
        assert len(made) == 5
        assert next(ahead) == 1


def test_an_error_while_decoding_is_raised_where_the_items_are_taken():
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("broken frame")

    with in_background(source(), limit=2) as ahead:
        assert next(ahead) == 1
        with pytest.raises(ValueError, match="broken frame"):
            next(ahead)


def test_leaving_early_stops_the_thread_and_closes_the_source():
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    with in_background(source(), limit=2) as ahead:
        next(ahead)
    assert closed.is_set()
