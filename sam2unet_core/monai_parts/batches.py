"""Which frames go through the network together, in training and in validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch.distributed
from monai.data import DataLoader, DistributedSampler
from torch.utils.data import BatchSampler, RandomSampler, Sampler, SequentialSampler

from sam2unet_core.errors import ConfigError
from sam2unet_core.monai_parts.training import scaled_size

STRIDE = 32
"""Pixels of the image to one of the network's coarsest map."""


class TrainingLoader(DataLoader):
    """MONAI's loader for training.

    Batch normalisation takes its statistics over a batch and its pixels, and of a single value
    there are none. An image of 32 x 32 is one pixel in the coarsest map: a last batch of one such
    image then goes with the batch before it.

    Args:
        dataset: gives the frames.
        image_size: `(height, width)` of the network's input.
        scales: see `ScaledBatch`.
        batch_size: frames in a batch.
        shuffle: whether each epoch has its own order.
        sampler: gives the order instead.
        drop_last: leave out a last batch that is not full.
        kwargs: further arguments of MONAI's loader.

    Raises:
        ConfigError: every batch would be of one such image.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        image_size: Sequence[int],
        scales: Sequence[float] = (1.0,),
        batch_size: int = 1,
        shuffle: bool = False,
        sampler: Sampler[int] | None = None,
        drop_last: bool = False,
        **kwargs: Any,
    ) -> None:
        if smallest_map(image_size, scales) > 1 or drop_last:
            kwargs |= {"batch_size": batch_size, "shuffle": shuffle, "drop_last": drop_last}
            super().__init__(dataset, sampler=sampler, **kwargs)
            return
        order = sampler or (RandomSampler(dataset) if shuffle else SequentialSampler(dataset))
        batches = JoinedBatches(order, batch_size)
        if batch_size == 1 or len(order) == 1:  # type: ignore[arg-type]
            got = "batch_size 1" if batch_size == 1 else "a single training frame"
            raise ConfigError(
                f"{got} with images of 32 x 32 (image_size {list(image_size)}, scales "
                f"{list(scales)}): batch normalisation gets a single value a channel and cannot "
                "work; give a batch_size of 2 or more and as many frames, or larger images"
            )
        super().__init__(dataset, batch_sampler=batches, **kwargs)


class JoinedBatches(BatchSampler):
    """Batches in order; a last one of a single frame goes with the one before it."""

    def __init__(self, sampler: Sampler[int], batch_size: int) -> None:
        super().__init__(sampler, batch_size, drop_last=False)

    def __iter__(self) -> Iterator[list[int]]:
        """Give the indices of each batch."""
        held: list[int] = []
        for batch in super().__iter__():
            if held and len(batch) == 1:
                held = held + batch
                break
            if held:
                yield held
            held = batch
        if held:
            yield held

    def __len__(self) -> int:
        """Return the number of batches."""
        count = super().__len__()
        is_single = len(self.sampler) % self.batch_size == 1  # type: ignore[arg-type]
        return count - 1 if is_single and count > 1 else count


def smallest_map(image_size: Sequence[int], scales: Sequence[float]) -> int:
    """Return the pixels of the network's coarsest map, at the smallest of the scales."""
    sizes = [scaled_size(image_size, scale) for scale in scales]
    return min(-(-height // STRIDE) * -(-width // STRIDE) for height, width in sizes)


def validation_sampler(dataset: Any) -> Sampler[int]:
    """Share frames out among processes, each to one; where there are too few, all to each.

    The measures are means over the frames of all processes. Each frame counts once, or each as
    often as there are processes, so the means are the same.
    """
    if len(dataset) < torch.distributed.get_world_size():
        return SequentialSampler(dataset)
    sampler: Sampler[int] = DistributedSampler(dataset, even_divisible=False, shuffle=False)
    return sampler
