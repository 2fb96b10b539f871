"""Resamples the results of a reformatted volume to its stored frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.batch.formats.output_format import Sink
from sam2unet_core.batch.outputs import UnitWork
from sam2unet_core.media.planes import source_series, stored_frame, to_source
from sam2unet_core.types import Series

if TYPE_CHECKING:
    from sam2unet_core.inference.engine import FrameResult


@contextmanager
def to_stored_frames(work: UnitWork, add: Sink) -> Iterator[Sink]:
    """Collect the results of a reformatted volume; at the end, pass those of each stored frame on.

    Memory holds the masks and probabilities of the whole volume.
    """
    cut = work.unit.series
    classes, shape = work.model.task.num_classes, (cut.frame_count, cut.rows, cut.columns)
    probabilities = np.zeros((*shape, classes), np.float32)
    masks = np.zeros((*shape, classes), bool)
    labels = np.zeros(shape, np.uint8)

    def gather(result: FrameResult) -> None:
        index = result.frame.index
        probabilities[index] = np.moveaxis(result.probabilities, 0, -1)
        masks[index] = np.moveaxis(result.masks, 0, -1)
        labels[index] = result.labels

    yield gather
    volumes = [to_source(cut, each) for each in (probabilities, masks, labels)]
    for index, values in enumerate(zip(*volumes, strict=True)):
        add(_result(source_series(cut), index, *values))


def _result(
    series: Series,
    index: int,
    probabilities: NDArray[np.float32],
    masks: NDArray[np.bool_],
    labels: NDArray[np.uint8],
) -> FrameResult:
    """Return the result of one stored frame, without pixels, from `(H, W, K)` values."""
    from sam2unet_core.inference.engine import FrameResult

    return FrameResult(
        stored_frame(series, index),
        np.ascontiguousarray(np.moveaxis(probabilities, -1, 0)),
        np.ascontiguousarray(np.moveaxis(masks, -1, 0)),
        np.ascontiguousarray(labels),
    )
