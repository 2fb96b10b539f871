"""A device whose memory runs out: less goes through the network together, and nothing is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sam2unet_core.errors import OutOfMemoryError
from sam2unet_core.inference.engine import Engine
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.types import Frame
from tests.batch.conftest import picture, segmenter

__all__ = ["segmenter"]  # a fixture


def frames(sides: list[int]) -> list[Frame]:
    return [Frame(picture(side), index, 0, index + 1) for index, side in enumerate(sides)]


def found_by(engine: Engine, sides: list[int]) -> list[int]:
    with engine:
        return [int(result.labels.sum()) for result in engine.results(frames(sides))]


def fitting(
    answer: Callable[[Tensor], Tensor], most: int
) -> tuple[Callable[[Tensor], Tensor], list[int]]:
    """Return `answer` for so many images at most, and the list of the numbers asked for."""
    sizes: list[int] = []

    def limited(images: Tensor) -> Tensor:
        sizes.append(len(images))
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answer(images)

    return limited, sizes


def test_the_batch_is_halved_and_stays_so(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limited, sizes = fitting(segmenter.runtime.logits, 2)
    monkeypatch.setattr(segmenter.runtime, "logits", limited)
    sides = list(range(1, 9))
    with caplog.at_level(logging.WARNING):
        found = found_by(Engine(segmenter.model, batch_size=8), sides)
    assert found == [side * side for side in sides]
    assert sizes == [8, 4, 2, 2, 2, 2]
    assert [record.message for record in caplog.records] == [
        "the device ran out of memory: continuing with smaller batches"
    ]


def test_a_mirror_image_that_does_not_fit_beside_its_frame_goes_after_it(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = replace(segmenter.model, task=replace(segmenter.task, flip_average=True))
    limited, sizes = fitting(model.runtime.logits, 1)
    monkeypatch.setattr(model.runtime, "logits", limited)
    assert found_by(Engine(model, batch_size=2), [3, 5, 8]) == [9, 25, 64]
    assert sizes == [4, 2, *[1, 1] * 3]


def test_one_frame_that_does_not_fit_is_an_error_that_says_what_to_do(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited, _ = fitting(segmenter.runtime.logits, 0)
    monkeypatch.setattr(segmenter.runtime, "logits", limited)
    with pytest.raises(OutOfMemoryError, match="use --device cpu or a smaller network"):
        found_by(Engine(segmenter.model, batch_size=4), [3])
