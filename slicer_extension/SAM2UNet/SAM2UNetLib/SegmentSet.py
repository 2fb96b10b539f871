"""The segments of a task's classes in one segmentation: made once, written, and taken back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import vtk
from numpy.typing import NDArray

from . import Edits, Labelmaps, Terminology
from .Slices import Matrix
from .Voxels import Box, Extent, Points

KEPT_TAGS = (
    Edits.WRITTEN_TAG,
    Edits.EDITED_TAG,
    Terminology.WEIGHTS_TAG,
    Terminology.THRESHOLD_TAG,
    Terminology.NOTE_TAG,
    "DICOM.SegmentAlgorithmType",
    "DICOM.SegmentAlgorithmName",
)
"""How a segment was made, which `undo` brings back with its voxels."""


class SegmentSet:
    """The segments of a task in a segmentation.

    A segment that an earlier run of the task made there is written on; one that a person made is
    never touched, whatever its name.

    Args:
        segmentation: vtkSegmentation.
        task: the content of the task's `task.json`.
        toRas: `(4, 4)` from voxel indices to the segmentation's own coordinates, in mm.
        algorithmName: goes into DICOM SEG; the task's by default.
        voxels: all that will be written; what they hold now is kept for `undo`.
    """

    def __init__(
        self,
        segmentation: Any,
        task: dict[str, Any],
        *,
        toRas: Matrix,
        voxels: Box | Points,
        algorithmName: str | None = None,
    ) -> None:
        self.segmentation = segmentation
        self.toRas = toRas
        self._voxels = voxels
        self._before: dict[str, NDArray[np.bool_] | None] = {}
        self._tags: dict[str, dict[str, str]] = {}
        self._marked: dict[str, tuple[str, int]] = {}
        self._left: dict[str, tuple[str, int]] = {}
        self.ids = [self._idOf(task, item, algorithmName) for item in task["classes"]]
        self.leave()

    def write(self, voxels: Box | Points, values: list[NDArray[np.bool_]]) -> None:
        """Set which voxels belong to each class; `values` are in the order of the classes."""
        for segmentId, one in zip(self.ids, values, strict=True):
            Labelmaps.writeVoxels(self.segmentation, segmentId, voxels, one, toRas=self.toRas)
        self.leave()

    def leave(self) -> None:
        """Remember how the segments were left: what follows until the next write is a person's."""
        for segmentId in self.ids:
            segment = self.segmentation.GetSegment(segmentId)
            if segment is not None:
                self._left[segmentId] = Labelmaps.stateOf(segment)

    @property
    def isTouched(self) -> bool:
        """Whether a person painted in a segment since `leave`."""
        for segmentId in self.ids:
            segment = self.segmentation.GetSegment(segmentId)
            if segment is None or self._left.get(segmentId) == Labelmaps.stateOf(segment):
                continue
            if not Edits.tagOf(segment, Edits.WRITTEN_TAG) or Edits.changed(segment):
                return True
        return False

    def mark(self, tags: Mapping[str, str]) -> None:
        """Remember what the segments hold now as written by this module, and how it was made.

        Args:
            tags: of each segment.
        """
        for segmentId in self.ids:
            segment = self.segmentation.GetSegment(segmentId)
            if segment is not None:
                Edits.markWritten(segment)
                self._marked[segmentId] = Labelmaps.stateOf(segment)
                for name, value in tags.items():
                    segment.SetTag(name, value)
        self.leave()

    @property
    def isEdited(self) -> bool:
        """Whether a person changed or removed a segment since `mark`."""
        found = {segmentId: self.segmentation.GetSegment(segmentId) for segmentId in self.ids}
        return any(
            segment is None
            or (
                self._marked.get(segmentId) != Labelmaps.stateOf(segment) and Edits.changed(segment)
            )
            for segmentId, segment in found.items()
        )

    def reserve(self, extent: Extent) -> None:
        """Make room for many slices that will be written one by one."""
        for segmentId in self.ids:
            Labelmaps.reserve(self.segmentation, segmentId, extent, toRas=self.toRas)
        self.leave()

    def undo(self) -> None:
        """Undo what was written: remove the segments that were made, restore the others."""
        for segmentId, values in self._before.items():
            if self.segmentation.GetSegment(segmentId) is None:
                continue  # a person removed it since
            if values is None:
                self.segmentation.RemoveSegment(segmentId)
            else:
                Labelmaps.writeVoxels(
                    self.segmentation, segmentId, self._voxels, values, toRas=self.toRas
                )
                for name, value in self._tags[segmentId].items():
                    self.segmentation.GetSegment(segmentId).SetTag(name, value)

    def _covers(self, segmentId: str, held: NDArray[np.bool_]) -> bool:
        """Return whether all that a segment holds lies in the voxels that will be written."""
        return int(held.sum()) == Labelmaps.count(self.segmentation.GetSegment(segmentId))

    def _idOf(self, task: dict[str, Any], item: dict[str, Any], name: str | None) -> str:
        segmentId = findSegment(self.segmentation, task, item)
        if segmentId is None:
            segmentId = self.segmentation.AddEmptySegment(
                self.segmentation.GenerateUniqueSegmentID(f"{task['name']}_{item['name']}"),
                item["label"],
                [value / 255 for value in item["rgb"]],
            )
            self._before[segmentId] = None
        else:
            self._before[segmentId] = Labelmaps.readVoxels(
                self.segmentation, segmentId, self._voxels, toRas=self.toRas
            )
        segment = self.segmentation.GetSegment(segmentId)
        self._tags[segmentId] = {name: Edits.tagOf(segment, name) for name in KEPT_TAGS}
        rest = self._before[segmentId]
        if rest is not None and Edits.edited(segment):
            whole = self._covers(segmentId, rest)
            segment.SetTag(Edits.EDITED_TAG, "" if whole else "1")
        for tag, value in Terminology.tagsOf(task, item, name=name).items():
            if rest is None or tag != Terminology.TERMINOLOGY_TAG:  # a person may have changed it
                segment.SetTag(tag, value)
        return segmentId


def findSegment(segmentation: Any, task: dict[str, Any], item: dict[str, Any]) -> str | None:
    """Return the ID of the segment that a run of the task made for a class, if there is one."""
    wanted = Terminology.classTag(task, item)
    for segmentId in segmentation.GetSegmentIDs():
        value = vtk.reference("")
        found = segmentation.GetSegment(segmentId).GetTag(Terminology.CLASS_TAG, value)
        if found and str(value) == wanted:
            return segmentId
    return None
