"""A segmentation for each frame of a sequence, kept in step with the frames by their browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import slicer
from numpy.typing import NDArray

from .Errors import ResultError
from .Inputs import Extraction, volumeSequence
from .Placement import checkMasks, localMatrix, putBeside
from .SegmentSet import SegmentSet

SEGMENTATION_CLASS = "vtkMRMLSegmentationNode"


class SequenceResult:
    """The result of a run on frames of a sequence.

    The node that people see and edit is the browser's proxy: it holds the segmentation of the
    frame that is shown, and edits go back into the sequence. A frame that was not looked at has no
    segmentation and shows none; one without findings has an empty one.
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
        self._made: list[int] = []
        self._frameOf(0)  # a proxy needs a first frame to be made of
        self.node = self._proxy()

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
        return any(segments.isEdited for segments in self._sets.values())

    def finish(self, *, surface: bool) -> None:
        """Show the frame that is selected; frames get no closed surface."""
        del surface
        self._show()

    def undo(self) -> None:
        """Undo the result: remove what was made, restore the frames that were there."""
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

    def _write(self, picture: int, masks: NDArray[np.uint8]) -> None:
        part, inside = self.extraction.partOf(picture)
        index = self.extraction.parts.index(part)
        values = [part.place.back(mask[None].astype(bool)) for mask in masks]
        self._frameOf(index).write(part.place.voxels(inside), values)

    def _frameOf(self, index: int) -> SegmentSet:
        """Return the segments of the frame of a part, made when they are first asked for."""
        if index in self._sets:
            return self._sets[index]
        part = self.extraction.parts[index]
        value = self._valueOf(part.item)
        node = self.sequence.GetDataNodeAtValue(value)
        if node is None:
            template = slicer.vtkMRMLSegmentationNode()
            template.SetName(self.sequence.GetName())
            node = self.sequence.SetDataNodeAtValue(template, value)
            self._made.append(index)
        node.SetReferenceImageGeometryParameterFromVolumeNode(part.node)
        self._sets[index] = SegmentSet(
            node.GetSegmentation(),
            self.task,
            toRas=localMatrix(part.node),
            voxels=part.place.voxels(),
            algorithmName=self.algorithmName,
        )
        return self._sets[index]

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
            browser.SetMissingItemMode(sequence, browser.MissingItemDisplayHidden)
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
    """Return the frames that were looked at: their index, and their segmentation.

    Raises:
        ResultError: the browser does not show the node, or no frame was looked at.
    """
    sequence, frames = segmentationSequence(browser, proxy), volumeSequence(browser)
    found = []
    for item in range(frames.GetNumberOfDataNodes()):
        node = sequence.GetDataNodeAtValue(frames.GetNthIndexValue(item))
        if node is not None:
            found.append((item, node))
    if not found:
        raise ResultError(f"{proxy.GetName()} has no frames", "segment first")
    return found
