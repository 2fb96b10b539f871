"""Writes masks into segmentations of a MRML scene, and undoes that.

What Slicer expects of a good segmentation is done here: geometry and parent transform of the
volume, the study in the subject hierarchy, names, colours, codes and algorithm of each segment.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import slicer
from numpy.typing import NDArray

from . import Edits, Labelmaps
from .Errors import ResultError
from .Inputs import Extraction, volumeSequence
from .Placement import Grid, attach, checkMasks, localMatrix, putBeside
from .SegmentSet import SegmentSet, findSegment
from .SequenceResult import SequenceResult, keepShown
from .Voxels import Box

_RESERVED_SLICES = 2
"""From this number of slices on, room is made for all of them at once."""


class SegmentationLogic:
    """One run's result in the scene; it can be undone."""

    def __init__(self) -> None:
        self._result: VolumeResult | SequenceResult | None = None
        self._written = False

    def begin(
        self,
        extraction: Extraction,
        task: dict[str, Any],
        *,
        segmentationNode: Any = None,
        algorithmName: str | None = None,
    ) -> Any:
        """Prepare the segmentation that a run will fill, and return its node.

        Args:
            extraction: what is segmented.
            task: the content of its `task.json`.
            segmentationNode: write into this one; a new one by default.
            algorithmName: goes into DICOM SEG; by default the task's name and version.

        Raises:
            ResultError: the segmentation does not belong to the volume.
        """
        saveForUndo(segmentationNode)
        kind = SequenceResult if extraction.isSequence else VolumeResult
        self._make = functools.partial(_made, kind, extraction, task, algorithmName=algorithmName)
        self._result = self._make(segmentationNode)
        self._written = False
        return self._result.node

    def updatePartial(self, picture: int, masks: NDArray[np.uint8]) -> None:
        """Show the masks `(K, H, W)` of one picture while the others are still computed."""
        if self._result is not None:
            self._result.writePicture(picture, masks)

    def complete(
        self,
        masks: NDArray[np.uint8],
        *,
        surface: bool = True,
        tags: Mapping[str, str] | None = None,
    ) -> Any:
        """Write the masks `(N, K, H, W)` of all pictures; may be called again with others.

        Args:
            masks: 0 and 1.
            surface: also make closed surfaces, where a whole volume was segmented.
            tags: of each segment: how it was made.

        Raises:
            ResultError: nothing was begun, or the masks are of other pictures.
        """
        result = self._beginWriting()
        if result.isTouched:
            result = self._beside()
        result.writeAll(masks)
        result.finish(surface=surface)
        result.mark(tags or {})
        self._written = True
        return result.node

    def completeFound(
        self,
        found: Iterator[tuple[int, NDArray[np.uint8]]],
        *,
        tags: Mapping[str, str] | None = None,
    ) -> Iterator[Any]:
        """Write the masks of frames with findings, one at a time; all other frames have none.

        May be called again with others.

        Args:
            found: pictures with findings, by their number, and their masks `(K, H, W)` of 0 and 1.
            tags: of each segment: how it was made.

        Yields:
            The segmentation's node, after each picture and at the end.

        Raises:
            ResultError: nothing was begun, or the segmentation is gone.
        """
        result = self._beginWriting()
        if result.isTouched:
            result = self._beside()
        for picture, masks in found:
            result.writeFound(picture, masks, tags or {})
            yield result.node
            if result.node.GetScene() is None:
                self._beginWriting()  # says so
            if self._result is not result:  # it was undone meanwhile
                return
        result.finishFound(tags or {})
        result.finish(surface=False)
        self._written = True
        yield result.node

    def leave(self) -> None:
        """Take the result as it is now: what is painted from here on is kept.

        Does nothing during a run, whose result is not there yet.
        """
        if self._result is not None and self._written:
            self._result.leave()

    def _beside(self) -> Any:
        """Make a new segmentation, because a person painted in this one during the run.

        Raises:
            ResultError: the run was done; its masks were to be changed alone.
        """
        if self._written:
            raise ResultError(
                "you painted while the result was computed again, so it stays as it is",
                "start again from the network's result to replace it",
            )
        self._result = self._make(None)
        return self._result

    def _beginWriting(self) -> Any:
        if self._result is None:
            raise ResultError("no segmentation was begun", "segment first")
        if self._result.node.GetScene() is None:
            self._result = None
            raise ResultError("the segmentation was removed from the scene", "segment again")
        if self._written and self._result.isEdited:  # edits go, at the user's wish
            saveForUndo(self._result.node)
        return self._result

    def apply(
        self,
        extraction: Extraction,
        masks: NDArray[np.uint8],
        task: dict[str, Any],
        *,
        segmentationNode: Any = None,
        algorithmName: str | None = None,
        surface: bool = True,
        tags: Mapping[str, str] | None = None,
    ) -> Any:
        """Put masks into a segmentation and return its node: `begin` and `complete`."""
        self.begin(extraction, task, segmentationNode=segmentationNode, algorithmName=algorithmName)
        return self.complete(masks, surface=surface, tags=tags)

    @property
    def canUndo(self) -> bool:
        """Whether there is a result to undo."""
        return self._result is not None

    @property
    def isEdited(self) -> bool:
        """Whether a person changed the last result since it was written."""
        return self._result is not None and self._result.isEdited

    def undo(self, *, painted: bool = True) -> bool:
        """Undo the last result and restore what was there before; return whether that was done.

        Args:
            painted: also where a person painted in it since; else it is left as it is then.
        """
        result, self._result = self._result, None
        if result is None or (not painted and result.isTouched):
            return result is None
        result.undo()
        return True


def _made(
    kind: Callable[..., Any],
    extraction: Extraction,
    task: dict[str, Any],
    segmentationNode: Any,
    *,
    algorithmName: str | None,
) -> Any:
    return kind(extraction, task, segmentationNode=segmentationNode, algorithmName=algorithmName)


class VolumeResult:
    """The result of a run on one volume."""

    def __init__(
        self,
        extraction: Extraction,
        task: dict[str, Any],
        *,
        segmentationNode: Any,
        algorithmName: Any,
    ) -> None:
        self.extraction = extraction
        (part,) = extraction.parts
        self.place = part.place
        volume = extraction.sourceNode
        self._new = segmentationNode is None
        self.node = _newNode(volume, task) if self._new else segmentationNode
        toRas = localMatrix(volume)
        if not self._new:
            attach(self.node, volume, toRas)
        voxels = self.place.voxels()
        self.segments = SegmentSet(
            self.node.GetSegmentation(),
            task,
            toRas=toRas,
            voxels=voxels,
            algorithmName=algorithmName,
        )
        if isinstance(voxels, Box) and extraction.count >= _RESERVED_SLICES:
            self.segments.reserve(voxels.extent)

    def writePicture(self, picture: int, masks: NDArray[np.uint8]) -> None:
        """Write the masks `(K, H, W)` of one picture."""
        values = [self.place.back(mask[None].astype(bool)) for mask in masks]
        self.segments.write(self.place.voxels(picture), values)

    def writeAll(self, masks: NDArray[np.uint8]) -> None:
        """Write the masks `(N, K, H, W)` of all pictures."""
        checkMasks(masks, self.extraction, len(self.segments.ids))
        values = [self.place.back(masks[:, k].astype(bool)) for k in range(masks.shape[1])]
        self.segments.write(self.place.voxels(), values)

    def mark(self, tags: Mapping[str, str]) -> None:
        """Remember what the segments hold as written by this module, and how it was made."""
        self.segments.mark(tags)

    def leave(self) -> None:
        """Take the result as it is now."""
        self.segments.leave()

    @property
    def isTouched(self) -> bool:
        """Whether a person painted in it since it was written or left."""
        return self.node.GetScene() is not None and self.segments.isTouched

    @property
    def isEdited(self) -> bool:
        """Whether a person changed it since `mark`."""
        return self.node.GetScene() is not None and self.segments.isEdited

    def finish(self, *, surface: bool) -> None:
        """Make closed surfaces for a volume, and update those that there are."""
        segmentation = self.node.GetSegmentation()
        had = segmentation.ContainsRepresentation(Labelmaps.SURFACE)
        if had:
            segmentation.RemoveRepresentation(Labelmaps.SURFACE)
        if had or (surface and self.extraction.whole and self.extraction.count > 1):
            self.node.CreateClosedSurfaceRepresentation()
        self.node.Modified()

    def undo(self) -> None:
        """Undo the result."""
        if self.node.GetScene() is None:
            return
        if self._new and self.node.GetSegmentation().GetNumberOfSegments() == len(
            self.segments.ids
        ):
            slicer.mrmlScene.RemoveNode(self.node)
            return
        self.segments.undo()
        self.finish(surface=False)


def overwritten(segmentationNode: Any, extraction: Extraction, task: dict[str, Any]) -> list[str]:
    """Return the names of the segments whose edits by hand a run would write over.

    Args:
        segmentationNode: where the run would write.
        extraction: what would be segmented.
        task: the content of its `task.json`.
    """
    held = []
    if extraction.isSequence:
        sequence = extraction.sourceNode.GetSequenceNode(segmentationNode)
        if sequence is None:
            return []
        keepShown(extraction.sourceNode, segmentationNode)
        frames = volumeSequence(extraction.sourceNode)
        for part in extraction.parts:
            node = sequence.GetDataNodeAtValue(frames.GetNthIndexValue(part.item))
            held += [] if node is None else [(node.GetSegmentation(), part)]
    else:
        held = [(segmentationNode.GetSegmentation(), part) for part in extraction.parts]
    names = []
    for segmentation, part in held:
        grid = Grid.of(part.node, extraction.clip)
        for item in task.get("classes", ()):
            segmentId = findSegment(segmentation, task, item)
            segment = segmentation.GetSegment(segmentId) if segmentId else None
            if segment is None or not Edits.edited(segment):
                continue
            values = Labelmaps.readVoxels(
                segmentation,
                segmentId,
                part.place.voxels() if extraction.clip is None else grid.box,
                toRas=grid.toRas,
            )
            if values.any():
                names.append(segment.GetName())
    return list(dict.fromkeys(names))


def saveForUndo(segmentationNode: Any) -> None:
    """Let Slicer's own undo bring back what a run is about to change.

    That of the scene, where the user switched it on, and that of the Segment Editor, where it is
    open on this segmentation.
    """
    slicer.mrmlScene.SaveStateForUndo()
    widget = getattr(slicer.modules, "SegmentEditorWidget", None)
    editor = getattr(widget, "editor", None)
    if None not in (editor, segmentationNode) and editor.segmentationNode() is segmentationNode:
        editor.saveStateForUndo()


def _newNode(volume: Any, task: dict[str, Any]) -> Any:
    name = slicer.mrmlScene.GenerateUniqueName(f"{volume.GetName()} {task['title']}")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    attach(node, volume, localMatrix(volume))
    putBeside(node, volume)
    return node
