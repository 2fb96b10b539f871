"""What segmentations of the scene hold, for the classes of a task."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from SAM2UNetLib import Placement
from SAM2UNetLib.SegmentSet import findSegment
from SAM2UNetLib.SequenceResult import framesOf, keepShown, volumeSequence


def masksOf(node: Any, volume: Any, task: dict[str, Any]) -> NDArray[np.uint8]:
    """Return the masks `(N, K, H, W)` of a volume's slices."""
    ids = [findSegment(node.GetSegmentation(), task, item) for item in task["classes"]]
    return Placement.masksOf(node, volume, ids)


def sequenceMasks(
    proxy: Any, browser: Any, task: dict[str, Any]
) -> tuple[NDArray[np.uint8], list[int]]:
    """Return the masks `(N, K, H, W)` of the frames that were looked at, and which these are."""
    keepShown(browser, proxy)
    frames, volumes = framesOf(proxy, browser), volumeSequence(browser)

    def held(frame: tuple[int, Any]) -> NDArray[np.uint8] | None:
        item, node = frame
        return None if node is None else masksOf(node, volumes.GetNthDataNode(item), task)

    empty = np.zeros_like(next(one for one in map(held, frames) if one is not None))
    masks = [empty if node is None else held((item, node)) for item, node in frames]
    return np.concatenate(masks), [item for item, _ in frames]
