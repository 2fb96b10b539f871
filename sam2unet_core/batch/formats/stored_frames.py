"""Results of a volume that was cut in another plane, brought back to its frames as stored."""

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
    """Gather the results of cuts; at the end give them to `add` frame by frame, as stored.

    Memory holds the masks and the probabilities of the whole volume.
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
    """Return what was found in one stored frame, from `(H, W, K)` values; no pixels with it."""
    from sam2unet_core.inference.engine import FrameResult

    return FrameResult(
        stored_frame(series, index),
        np.ascontiguousarray(np.moveaxis(probabilities, -1, 0)),
        np.ascontiguousarray(np.moveaxis(masks, -1, 0)),
        np.ascontiguousarray(labels),
    )
