"""Whether a person changed what this module wrote, today or in a scene that was saved since.

A segment keeps a hash of the voxels that were written last, as a tag that is saved with it. A
segment that differs from its hash was edited.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import vtk

from . import Labelmaps, Terminology
from .Voxels import Box

WRITTEN_TAG = "SAM2UNet.Written"
"""Hash of the voxels that were written last."""
EDITED_TAG = "SAM2UNet.Edited"
"""Set where a run wrote a part of a segment whose rest a person had edited."""


def tagOf(segment: Any, name: str) -> str:
    """Return a tag of a segment; empty where it has none."""
    value = vtk.reference("")
    return str(value) if segment.GetTag(name, value) else ""


def isOurs(segment: Any) -> bool:
    """Return whether a run of this module made a segment."""
    return bool(tagOf(segment, Terminology.CLASS_TAG))


def markWritten(segment: Any) -> None:
    """Remember the voxels of a segment as those that were written last."""
    segment.SetTag(WRITTEN_TAG, _hashOf(segment))


def changed(segment: Any) -> bool:
    """Return whether a segment of ours differs from what was written last."""
    written = tagOf(segment, WRITTEN_TAG)
    return bool(written) and written != _hashOf(segment)


def edited(segment: Any) -> bool:
    """Return whether a person changed a segment of ours, ever since a run made all of it."""
    return tagOf(segment, EDITED_TAG) == "1" or changed(segment)


def segmentsOf(segmentation: Any) -> list[Any]:
    """Return the segments of a vtkSegmentation, in order."""
    return [segmentation.GetSegment(each) for each in segmentation.GetSegmentIDs()]


def _hashOf(segment: Any) -> str:
    """Return a hash of the voxels that belong to a segment, wherever its array begins and ends."""
    digest = hashlib.blake2b(digest_size=16)
    extent, values = Labelmaps.heldBy(segment)
    if values.any():
        bounds = Box(extent).bounds(values)
        inner = Box(bounds).take(values, extent, label=1)
        digest.update(repr(tuple(bounds)).encode())
        digest.update(np.packbits(inner).tobytes())
    return digest.hexdigest()
