"""A segmentation for each frame of a sequence, kept in step with the frames by their browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import slicer
from numpy.typing import NDArray

from . import Edits, Labelmaps
from .Clips import Clip
from .Errors import ResultError
from .FrameFollower import LOOKED_AT, FrameFollower, inRanges, lookedAt, newFrame
from .Inputs import Extraction, Part, volumeSequence
from .Placement import Grid, checkMasks, putBeside
from .SegmentSet import SegmentSet

SEGMENTATION_CLASS = "vtkMRMLSegmentationNode"


class SequenceResult:
    """The result of a run on frames of a sequence.

    The node that people see and edit is the browser's proxy: it holds the segmentation of the
    frame that is shown, and edits go back into the sequence. A frame that was not looked at has no
    segmentation and shows none; one without findings has an empty one, or, in results that name the
    frames with findings alone, none until it is shown.
    """

    def __init__(
        self,
        extraction: Extraction,
        task: dict[str, Any],
        *,
        segmentationNode: Any,
        algorithmName: Any,
    ) -> None:
        self.extraction, self.task, self.algorithmName = extraction, task, algorithmName
        self.browser = extraction.sourceNode
        self.frames = volumeSequence(self.browser)
        self.sequence = segmentationSequence(self.browser, segmentationNode)
        self._new = self.sequence is None
        if self.sequence is None:
            self.sequence = self._newSequence()
        self._sets: dict[int, SegmentSet] = {}
        self._left: dict[str, tuple[Any, ...]] = {}
        self._made: set[int] = set()
        self._found: set[int] = set()
        self._clip = Clip.of(self.frames)
        self._before = self.sequence.GetAttribute(LOOKED_AT)
        self._frameOf(0)  # a proxy needs a first frame to be made of
        self.node = self._proxy()
        FrameFollower.attach(self.browser, self.sequence, task=task, algorithmName=algorithmName)
        self.leave()

    def writePicture(self, picture: int, masks: NDArray[np.uint8]) -> None:
        """Write the masks `(K, H, W)` of one frame's slice."""
        self._write(picture, masks)
        part, _ = self.extraction.partOf(picture)
        if part.item == self.browser.GetSelectedItemNumber():
            self._show()

    def writeAll(self, masks: NDArray[np.uint8]) -> None:
        """Write the masks `(N, K, H, W)` of all frames."""
        checkMasks(masks, self.extraction, len(self.task["classes"]))
        for picture, one in enumerate(masks):
            self._write(picture, one)
        self._noteLookedAt()

    def writeFound(self, picture: int, masks: NDArray[np.uint8], tags: Mapping[str, str]) -> None:
        """Write the masks `(K, H, W)` of one frame with findings, and `mark` it.

        `finishFound` comes last.
        """
        index = self._write(picture, masks)
        self._sets[index].mark(tags)
        self._found.add(index)

    def leave(self) -> None:
        """Take the frames as they are now: what is painted from here on is a person's."""
        keepShown(self.browser, self.node)
        for index in range(len(self.extraction.parts)):
            self._leave(index)

    def _leave(self, index: int) -> None:
        value = self._valueOf(self.extraction.parts[index].item)
        node = self.sequence.GetDataNodeAtValue(value)
        if node is not None:
            self._left[value] = _statesOf(node)

    @property
    def isTouched(self) -> bool:
        """Whether a person painted in a frame since it was written or left."""
        if self.node.GetScene() is None:
            return False
        keepShown(self.browser, self.node)
        for part in self.extraction.parts:
            value = self._valueOf(part.item)
            node = self.sequence.GetDataNodeAtValue(value)
            if node is None or self._left.get(value) == _statesOf(node):
                continue
            segments = Edits.segmentsOf(node.GetSegmentation())
            held = [each for each in segments if Labelmaps.count(each)]
            if any(
                Edits.changed(each) if Edits.tagOf(each, Edits.WRITTEN_TAG) else each in held
                for each in segments
            ):
                return True
        return False

    def finishFound(self, tags: Mapping[str, str]) -> None:
        """Take the findings out of all frames that `writeFound` was not called for."""
        found, self._found = self._found, set()
        for index, part in enumerate(self.extraction.parts):
            value = self._valueOf(part.item)
            if index in found or self.sequence.GetDataNodeAtValue(value) is None:
                continue
            if index in self._made and self.sequence.GetNumberOfDataNodes() > 1:
                self.sequence.RemoveDataNodeAtValue(value)
                self._made.discard(index)
                del self._sets[index]
                continue
            segments = self._frameOf(index)
            empty = np.zeros(self._grid(part).size, bool)
            segments.write(self._grid(part).box, [empty] * len(segments.ids))
            segments.mark(tags)
        self._noteLookedAt()

    def mark(self, tags: Mapping[str, str]) -> None:
        """Remember what the frames' segments hold as written by this module, and how."""
        for segments in self._sets.values():
            segments.mark(tags)
        self._show()

    @property
    def isEdited(self) -> bool:
        """Whether a person changed a frame since `mark`."""
        if self.node.GetScene() is None:
            return False
        keepShown(self.browser, self.node)
        if any(segments.isEdited for segments in self._sets.values()):
            return True
        others = (i for i in range(len(self.extraction.parts)) if i not in self._sets)
        values = (self._valueOf(self.extraction.parts[index].item) for index in others)
        shown = (self.sequence.GetDataNodeAtValue(value) for value in values)
        return any(node is not None and _hasFindings(node) for node in shown)

    def finish(self, *, surface: bool) -> None:
        """Show the frame that is selected; frames get no closed surface."""
        del surface
        self._show()

    def undo(self) -> None:
        """Undo the result: remove what was made, restore the frames that were there."""
        self.sequence.SetAttribute(LOOKED_AT, self._before)
        if self._new:
            proxy = self.browser.GetProxyNode(self.sequence)
            self.browser.RemoveSynchronizedSequenceNode(self.sequence.GetID())
            for node in (proxy, self.sequence):
                if node is not None and node.GetScene() is not None:
                    slicer.mrmlScene.RemoveNode(node)
            return
        for index, segments in self._sets.items():
            item = self.extraction.parts[index].item
            if index in self._made:
                self.sequence.RemoveDataNodeAtValue(self._valueOf(item))
            else:
                segments.undo()
        self._show()

    def _write(self, picture: int, masks: NDArray[np.uint8]) -> int:
        """Write the masks of a picture; return the number of the part it belongs to."""
        index, inside = divmod(picture, self.extraction.parts[0].place.count)
        part = self.extraction.parts[index]
        voxels = part.place.voxels(inside)
        if self._clip is not None:
            voxels = self._grid(part).box
            if masks.shape[1:] != (self._clip.rows, self._clip.columns):
                masks = self._clip.enlarged(masks)
        values = [part.place.back(mask[None].astype(bool)) for mask in masks]
        self._frameOf(index).write(voxels, values)
        self._frameOf(index).mark({})
        self._leave(index)
        return index

    def _frameOf(self, index: int) -> SegmentSet:
        """Return the segments of the frame of a part, made when they are first asked for."""
        if index in self._sets:
            return self._sets[index]
        part = self.extraction.parts[index]
        value, grid = self._valueOf(part.item), self._grid(part)
        node = self.sequence.GetDataNodeAtValue(value)
        if node is None:
            node = newFrame(self.sequence, value)
            self._made.add(index)
        grid.describe(node)
        self._sets[index] = SegmentSet(
            node.GetSegmentation(),
            self.task,
            toRas=grid.toRas,
            voxels=part.place.voxels() if self._clip is None else grid.box,
            algorithmName=self.algorithmName,
        )
        return self._sets[index]

    def _grid(self, part: Part) -> Grid:
        return Grid.of(part.node, self._clip)

    def _noteLookedAt(self) -> None:
        items = lookedAt(self.sequence) | {part.item for part in self.extraction.parts}
        self.sequence.SetAttribute(LOOKED_AT, inRanges(items))

    def _valueOf(self, item: int | None) -> str:
        return self.frames.GetNthIndexValue(item)

    def _newSequence(self) -> Any:
        # Slicer looks into a saved sequence by a pattern of its name, in which [1] means 1.
        clip = self.frames.GetName().translate(str.maketrans("[]", "()"))
        name = slicer.mrmlScene.GenerateUniqueName(f"{clip} {self.task['title']}")
        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
        sequence.SetIndexName(self.frames.GetIndexName())
        sequence.SetIndexUnit(self.frames.GetIndexUnit())
        sequence.SetIndexType(self.frames.GetIndexType())
        return sequence

    def _proxy(self) -> Any:
        browser, sequence = self.browser, self.sequence
        if not browser.IsSynchronizedSequenceNode(sequence, True):
            items = [part.item for part in self.extraction.parts]
            if browser.GetSelectedItemNumber() not in items:
                browser.SetSelectedItemNumber(items[0])  # what is shown would be saved as a frame
            browser.AddSynchronizedSequenceNode(sequence)
            browser.SetSaveChanges(sequence, True)
            browser.SetMissingItemMode(sequence, browser.MissingItemSetToDefault)
        self._show()
        proxy = browser.GetProxyNode(sequence)
        if proxy is None:
            first = sequence.GetNthDataNode(0)
            proxy = browser.AddProxyNode(first, sequence, True)
        if proxy.GetDisplayNode() is None:
            proxy.CreateDefaultDisplayNodes()
        volume = browser.GetProxyNode(self.frames)
        if volume is not None:
            proxy.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
            role = proxy.GetReferenceImageGeometryReferenceRole()
            proxy.SetNodeReferenceID(role, volume.GetID())
            putBeside(proxy, volume)
        return proxy

    def _show(self) -> None:
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(self.browser)


def segmentationSequence(browser: Any, proxy: Any) -> Any:
    """Return the sequence of segmentations that a browser shows by a node; None for no node.

    Raises:
        ResultError: the browser does not show the node.
    """
    if proxy is None:
        return None
    sequence = browser.GetSequenceNode(proxy)
    if sequence is None or sequence.GetDataNodeClassName() != SEGMENTATION_CLASS:
        raise ResultError(
            f"{proxy.GetName()} does not follow the frames of {browser.GetName()}",
            "choose a new segmentation",
        )
    return sequence


def keepShown(browser: Any, proxy: Any) -> None:
    """Put the edits of the frame that is shown into its sequence, as leaving the frame does."""
    sequence, frames = browser.GetSequenceNode(proxy), volumeSequence(browser)
    value = frames.GetNthIndexValue(max(0, browser.GetSelectedItemNumber()))
    if sequence is not None and sequence.GetDataNodeAtValue(value) is not None:
        slicer.modules.sequences.logic().UpdateSequencesFromProxyNodes(browser, proxy)


def framesOf(proxy: Any, browser: Any) -> list[tuple[int, Any]]:
    """Return the frames that were looked at: their index, and their segmentation or None.

    Raises:
        ResultError: the browser does not show the node, or no frame was looked at.
    """
    sequence, frames = segmentationSequence(browser, proxy), volumeSequence(browser)
    noted, found = lookedAt(sequence), []
    for item in range(frames.GetNumberOfDataNodes()):
        node = sequence.GetDataNodeAtValue(frames.GetNthIndexValue(item))
        if item in noted or (node is not None and (not noted or _hasFindings(node))):
            found.append((item, node))
    if not found:
        raise ResultError(f"{proxy.GetName()} has no frames", "segment first")
    return found


def _statesOf(node: Any) -> tuple[Any, ...]:
    return tuple(Labelmaps.stateOf(each) for each in Edits.segmentsOf(node.GetSegmentation()))


def _hasFindings(node: Any) -> bool:
    segmentation = node.GetSegmentation()
    segments = (segmentation.GetSegment(each) for each in segmentation.GetSegmentIDs())
    return any(Labelmaps.count(segment) for segment in segments)
