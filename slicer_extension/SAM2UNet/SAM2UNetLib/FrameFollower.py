"""Frames without findings: which were looked at, and a segmentation for the one that is shown.

A clip may have hours of frames and findings in a few. The others have no segmentation of their own
until a person looks at one: then it gets an empty one, with the task's segments, to draw in.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from typing import Any, ClassVar

import slicer
import vtk

from .Clips import Clip
from .Errors import InputError
from .InputInfo import volumeSequence
from .Placement import Grid
from .SegmentSet import SegmentSet

LOOKED_AT = "SAM2UNet.lookedAt"
"""Attribute of a sequence of segmentations: the frames that were looked at, as `0-7 9`."""


TASKS = "SAM2UNet.tasks"
"""Attribute of a sequence of segmentations: what its segments are, as JSON."""


class FrameFollower:
    """Makes a segmentation for the frame that a browser shows, as long as its sequence is there.

    Args:
        browser: of the clip.
        sequence: of the segmentations; its attribute `TASKS` says which segments a frame gets.
    """

    _all: ClassVar[list[FrameFollower]] = []

    def __init__(self, browser: Any, sequence: Any) -> None:
        self.browser, self.sequence = browser, sequence
        self._frames = volumeSequence(browser)
        self._observation = browser.AddObserver(vtk.vtkCommand.ModifiedEvent, self._follow)

    @classmethod
    def attach(
        cls, browser: Any, sequence: Any, *, task: dict[str, Any], algorithmName: str | None
    ) -> None:
        """Follow a browser from now on, and in the scene when it is opened again.

        Args:
            browser: of the clip.
            sequence: of the segmentations.
            task: the content of the task's `task.json`.
            algorithmName: see `SegmentSet`.
        """
        content = {key: task.get(key) for key in ("name", "version", "title", "classes")}
        tasks = [each for each in tasksOf(sequence) if each["task"]["name"] != task["name"]]
        tasks.append({"task": content, "algorithmName": algorithmName})
        sequence.SetAttribute(TASKS, json.dumps(tasks))
        cls._follows(browser, sequence)

    @classmethod
    def attachAll(cls) -> None:
        """Follow the browsers of all clips with results in the scene, as after it was opened."""
        logic = slicer.modules.sequences.logic()
        for sequence in slicer.util.getNodesByClass("vtkMRMLSequenceNode"):
            if tasksOf(sequence):
                browser = logic.GetFirstBrowserNodeForSequenceNode(sequence)
                if browser is not None:
                    with contextlib.suppress(InputError):  # a browser without frames
                        cls._follows(browser, sequence)

    @classmethod
    def _follows(cls, browser: Any, sequence: Any) -> None:
        cls._all = [each for each in cls._all if each.sequence.GetScene() is not None]
        if all(each.browser is not browser or each.sequence is not sequence for each in cls._all):
            cls._all.append(cls(browser, sequence))

    def _follow(self, browser: Any, _event: str) -> None:
        frames, sequence = self._frames, self.sequence
        if None in (frames.GetScene(), sequence.GetScene()):
            browser.RemoveObserver(self._observation)
            return
        item = browser.GetSelectedItemNumber()
        if browser.GetPlaybackActive() or not 0 <= item < frames.GetNumberOfDataNodes():
            return
        value = frames.GetNthIndexValue(item)
        if sequence.GetDataNodeAtValue(value) is not None:
            return
        node = newFrame(sequence, value)
        grid = Grid.of(frames.GetNthDataNode(item), Clip.of(frames))
        grid.describe(node)
        for each in tasksOf(sequence):
            made = SegmentSet(
                node.GetSegmentation(),
                each["task"],
                toRas=grid.toRas,
                voxels=grid.box,
                algorithmName=each["algorithmName"],
            )
            made.mark({})  # so that it is known what a person draws
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)


def tasksOf(sequence: Any) -> list[dict[str, Any]]:
    """Return the tasks whose segments a sequence of segmentations holds; none where it has none."""
    try:
        found = json.loads(sequence.GetAttribute(TASKS) or "[]")
        return [each for each in found if each["task"]["name"] and each["task"]["classes"]]
    except (ValueError, TypeError, KeyError):  # an attribute that somebody else wrote
        return []


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
