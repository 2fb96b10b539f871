"""How frames are batched in training and validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch.distributed
from monai.data import DataLoader, DistributedSampler
from torch.utils.data import BatchSampler, RandomSampler, Sampler, SequentialSampler

from sam2unet_core.errors import ConfigError
from sam2unet_core.monai_parts.training import scaled_size

STRIDE = 32
"""Stride of the network's coarsest feature map."""


class TrainingLoader(DataLoader):
    """MONAI's data loader for training.

    Batch normalisation needs more than one value per channel, and an image of 32 x 32 is a single
    pixel in the coarsest feature map. If the last batch is one such image, it is therefore joined
    to the batch before it.

    Args:
        dataset: the frames.
        image_size: `(height, width)` of the network's input.
        scales: see `ScaledBatch`.
        batch_size: frames per batch.
        shuffle: whether to shuffle the frames in each epoch.
        sampler: determines the order instead of `shuffle`.
        drop_last: whether to drop an incomplete last batch.
        kwargs: other arguments of MONAI's `DataLoader`.

    Raises:
        ConfigError: every batch would be a single image of 32 x 32.
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
                f"{list(scales)}): batch normalisation cannot work with a single value per "
                "channel; give at least 2 frames and a batch_size of 2 or more, or larger images"
            )
        super().__init__(dataset, batch_sampler=batches, **kwargs)


class JoinedBatches(BatchSampler):
    """Batches in order; a last batch of a single frame is joined to the one before it."""

    def __init__(self, sampler: Sampler[int], batch_size: int) -> None:
        super().__init__(sampler, batch_size, drop_last=False)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the indices of each batch."""
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
    """Return the number of pixels in the network's coarsest feature map at the smallest scale."""
    sizes = [scaled_size(image_size, scale) for scale in scales]
    return min(-(-height // STRIDE) * -(-width // STRIDE) for height, width in sizes)


def validation_sampler(dataset: Any) -> Sampler[int]:
    """Distribute frames among processes, each frame to one; if there are too few, all to each.

    Metrics are means over the frames of all processes. All frames count equally often, so both
    cases give the same means.
    """
    if len(dataset) < torch.distributed.get_world_size():
        return SequentialSampler(dataset)
    sampler: Sampler[int] = DistributedSampler(dataset, even_divisible=False, shuffle=False)
    return sampler
