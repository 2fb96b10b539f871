"""Batches whose statistics are none: joined, or refused before training."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import SequentialSampler

from sam2unet_core.errors import ConfigError
from sam2unet_core.monai_parts import TrainingLoader, validation_sampler
from sam2unet_core.monai_parts.batches import JoinedBatches, smallest_map


@pytest.mark.parametrize(
    ("frames", "size", "batches"),
    [
        (7, 3, [[0, 1, 2], [3, 4, 5, 6]]),
        (7, 2, [[0, 1], [2, 3], [4, 5, 6]]),
        (6, 3, [[0, 1, 2], [3, 4, 5]]),
        (8, 3, [[0, 1, 2], [3, 4, 5], [6, 7]]),
        (4, 3, [[0, 1, 2, 3]]),
        (2, 8, [[0, 1]]),
    ],
)
def test_a_last_batch_of_one_goes_with_the_one_before(frames, size, batches):
    found = JoinedBatches(SequentialSampler(range(frames)), size)
    assert list(found) == batches
    assert len(found) == len(batches)


@pytest.mark.parametrize(
    ("size", "scales", "pixels"),
    [
        ([32, 32], [1.0], 1),
        ([32, 33], [1.0], 2),
        ([64, 64], [1.0], 4),
        ([64, 64], [0.5, 1.0], 1),
        ([352, 352], [1.0, 1.25], 121),
        ([48, 48], [1.0], 4),
        ([48, 48], [0.9], 1),  # 43.2 is nearest to 32
    ],
)
def test_the_coarsest_map_has_a_pixel_for_32_by_32(size, scales, pixels):
    assert smallest_map(size, scales) == pixels


def loaded(image_size, **options):
    data = [{"image": torch.full((1,), float(i))} for i in range(7)]
    loader = TrainingLoader(data, image_size=image_size, **options)
    found = [batch["image"].flatten().tolist() for batch in loader]
    assert len(loader) == len(found)
    return found


def test_only_images_of_one_pixel_in_the_coarsest_map_are_joined():
    assert [len(b) for b in loaded((32, 32), batch_size=3)] == [3, 4]
    assert [len(b) for b in loaded((64, 64), batch_size=3)] == [3, 3, 1]
    assert [len(b) for b in loaded((32, 32), batch_size=3, drop_last=True)] == [3, 3]


def test_every_frame_is_seen_once_in_an_order_of_its_own():
    torch.manual_seed(0)
    found = [i for batch in loaded((32, 32), batch_size=3, shuffle=True) for i in batch]
    assert sorted(found) == list(range(7))
    assert found != sorted(found)


@pytest.mark.parametrize("scales", [[1.0], [1.0, 0.5]])
def test_single_frames_throughout_are_refused(scales):
    size = [32, 32] if scales == [1.0] else [64, 64]
    message = "batch_size 1 with images of 32 x 32.*batch_size of 2 or more"
    with pytest.raises(ConfigError, match=message):
        TrainingLoader([0, 1, 2], image_size=size, scales=scales, batch_size=1)
    with pytest.raises(ConfigError, match="a single training frame with images of 32 x 32"):
        TrainingLoader([0], image_size=size, scales=scales, batch_size=4)


@pytest.mark.parametrize(
    ("frames", "shares"),
    [(1, [[0], [0], [0]]), (2, [[0, 1]] * 3), (3, [[0], [1], [2]]), (4, [[0, 3], [1], [2]])],
)
def test_each_process_validates_a_share_or_where_they_are_too_few_all(frames, shares, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_available", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 3)
    for rank, share in enumerate(shares):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda *_, rank=rank: rank)
        assert list(validation_sampler(range(frames))) == share
