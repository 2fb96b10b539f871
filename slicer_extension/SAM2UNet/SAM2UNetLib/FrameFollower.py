"""Frames without findings: which were looked at, and a segmentation for the one that is shown.

A clip may have hours of frames and findings in a few. The others have no segmentation of their own
until a person looks at one: then it gets an empty one, with the task's segments, to draw in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import slicer
import vtk

from .Clips import Clip
from .InputInfo import volumeSequence
from .Placement import Grid
from .SegmentSet import SegmentSet

LOOKED_AT = "SAM2UNet.lookedAt"
"""Attribute of a sequence of segmentations: the frames that were looked at, as `0-7 9`."""


class FrameFollower:
    """Makes a segmentation for the frame that a browser shows, as long as its sequence is there.

    Args:
        browser: of the clip.
        sequence: of the segmentations.
        task: the content of the task's `task.json`.
        algorithmName: see `SegmentSet`.
    """

    def __init__(
        self, browser: Any, sequence: Any, *, task: dict[str, Any], algorithmName: str | None
    ) -> None:
        self._frames, self._sequence = volumeSequence(browser), sequence
        self._task, self._algorithmName = task, algorithmName
        self._observation = browser.AddObserver(vtk.vtkCommand.ModifiedEvent, self._follow)

    def _follow(self, browser: Any, _event: str) -> None:
        frames, sequence = self._frames, self._sequence
        if None in (frames.GetScene(), sequence.GetScene()):
            browser.RemoveObserver(self._observation)
            return
        item = browser.GetSelectedItemNumber()
        if browser.GetPlaybackActive() or not 0 <= item < frames.GetNumberOfDataNodes():
            return
        value = frames.GetNthIndexValue(item)
        if sequence.GetDataNodeAtValue(value) is not None:
            return
        node, grid = (
            newFrame(sequence, value),
            Grid.of(frames.GetNthDataNode(item), Clip.of(frames)),
        )
        grid.describe(node)
        made = SegmentSet(
            node.GetSegmentation(),
            self._task,
            toRas=grid.toRas,
            voxels=grid.box,
            algorithmName=self._algorithmName,
        )
        made.mark({})  # so that it is known what a person draws
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)


def newFrame(sequence: Any, value: str) -> Any:
    """Add an empty segmentation to a sequence and return it."""
    template = slicer.vtkMRMLSegmentationNode()
    template.SetName(sequence.GetName())
    return sequence.SetDataNodeAtValue(template, value)


def lookedAt(sequence: Any) -> set[int]:
    """Return the frames that were looked at, from 0; none where the sequence does not say."""
    found: set[int] = set()
    for words in (sequence.GetAttribute(LOOKED_AT) or "").split():
        first, _dash, last = words.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def inRanges(numbers: Iterable[int]) -> str:
    """Return numbers as text: `0-7 9`."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return " ".join(f"{low}-{high}" if low < high else str(low) for low, high in ranges)
