"""What a DICOM SEG says of a segmentation of the scene: its segments, their masks, their makers.

Any segmentation will do whose image came from DICOM: of today or from a saved scene, edited, with
segments drawn by hand, or made by other modules.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import Edits, Terminology
from .Clips import Clip
from .Errors import ResultError
from .InputInfo import sourceOf, volumeSequence
from .Placement import Grid, localMatrix, masksOf, referenceOf
from .SequenceResult import framesOf, keepShown

LARGE_BYTES = 2**28
"""Masks that take more are kept on the disk while they are gathered."""
ALGORITHM_TYPES = ("AUTOMATIC", "SEMIAUTOMATIC", "MANUAL")


@dataclass
class Exported:
    """A segmentation as DICOM SEG holds it.

    Attributes:
        segments: for each, what the worker's `write_seg` takes.
        masks: `(N, K, H, W)` uint8, in the order in which the series is read.
        frames: which frames of the series were looked at, from 0.
        maskFrames: which of those, counted from 0, each of the N is; the others have no findings.
        items: which slices, or items of the sequence, the frames are, from 0.
        title: of the result.
        notes: what a reader must know, such as that the weights are for research only.
        weights: hash of the weights that made it; None if no or several networks did.
        threshold: with which it was made; None if that is not known.
    """

    segments: list[dict[str, Any]]
    masks: NDArray[np.uint8]
    frames: list[int]
    maskFrames: list[int]
    items: list[int]
    title: str
    notes: str = ""
    weights: str | None = None
    threshold: float | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields of `write_seg` beside the masks and the files."""
        return {
            "segments": self.segments,
            "frames": self.frames,
            "mask_frames": self.maskFrames,
            "title": self.title,
            "algorithm": self.notes or None,
            "weights_sha256": self.weights,
            "threshold": self.threshold,
        }


def imageOf(segmentationNode: Any) -> Any:
    """Return the image of a segmentation: a volume, or the browser of the clip it follows.

    Raises:
        ResultError: it has none.
    """
    volume = referenceOf(segmentationNode)
    if volume is None:
        raise ResultError(
            f"{segmentationNode.GetName()} belongs to no image",
            "choose its image in Segment Editor (Source volume), then save again",
        )
    return sourceOf(volume)


def exported(segmentationNode: Any) -> Exported:
    """Return a segmentation as it is now, edits included.

    Raises:
        ResultError: it has no segment or no image, or another parent transform than its image.
    """
    image = imageOf(segmentationNode)
    if not image.IsA("vtkMRMLSequenceBrowserNode"):
        segments = Edits.segmentsOf(segmentationNode.GetSegmentation())
        _check(segmentationNode, segments)
        ids = list(segmentationNode.GetSegmentation().GetSegmentIDs())
        masks = masksOf(segmentationNode, image, ids)
        if np.linalg.det(localMatrix(image)[:3, :3]) < 0:
            masks = np.ascontiguousarray(masks[::-1])  # read along row x column
        made = [_described([segment]) for segment in segments]
        every = list(range(len(masks)))
        return _exported(segmentationNode, segments, made, masks, (every, every, every))
    return _ofClip(segmentationNode, image)


def unboundFrame(segmentationNode: Any) -> int | None:
    """Return the shown frame of the clip that a segmentation belongs to but does not follow.

    So it is with one that was made in Segment Editor: it shows on all frames. None for others.
    """
    image = imageOf(segmentationNode)
    follows = not image.IsA("vtkMRMLSequenceBrowserNode") or image.GetSequenceNode(segmentationNode)
    return None if follows else max(0, image.GetSelectedItemNumber())


def _ofClip(proxy: Any, browser: Any) -> Exported:
    """Return the frames that were looked at; where the node follows no frame, the shown one."""
    volumes = volumeSequence(browser)
    shown = unboundFrame(proxy)
    if shown is not None:
        frames = [(shown, proxy)]
    else:
        keepShown(browser, proxy)
        frames = framesOf(proxy, browser)
    found: dict[tuple[str, str], dict[int, Any]] = {}
    for index, (_item, node) in enumerate(frames):
        for segmentId in node.GetSegmentation().GetSegmentIDs() if node is not None else ():
            segment = node.GetSegmentation().GetSegment(segmentId)
            found.setdefault((segmentId, segment.GetName()), {})[index] = segment
    segments = [segment for held in found.values() for segment in held.values()]
    _check(proxy, segments)
    clip = Clip.of(volumes)
    k, rows, columns = Grid.of(volumes.GetNthDataNode(frames[0][0]), clip).size
    masked = sorted({index for held in found.values() for index in held})
    masks = _zeros((len(masked) * k, len(found), rows, columns))
    for number, key in enumerate(found):
        for place, index in enumerate(masked):
            if index not in found[key]:
                continue
            item, node = frames[index]
            volume = volumes.GetNthDataNode(item)
            one = masksOf(node, volume, [key[0]], transform=False, clip=clip)
            masks[place * k : (place + 1) * k, number] = one[:, 0]
    made = [_described(list(held.values())) for held in found.values()]
    items = [item for item, _node in frames]
    read = [item if clip is None else clip.frame(item) for item in items]
    numbers = tuple(
        [each * k + n for each in chosen for n in range(k)] for chosen in (read, masked, items)
    )
    return _exported(proxy, segments, made, masks, numbers)


def _zeros(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return an array of zeros, in a file without a name where it is large."""
    if math.prod(shape) <= LARGE_BYTES:
        return np.zeros(shape, np.uint8)
    with tempfile.TemporaryFile() as stream:
        return np.memmap(stream, np.uint8, "w+", shape=shape)


def _check(node: Any, segments: list[Any]) -> None:
    if not segments:
        raise ResultError(f"{node.GetName()} has no segments", "segment first, or draw a segment")


def _described(segments: list[Any]) -> dict[str, Any]:
    """Describe one segment, given as it is in each frame."""
    first = segments[0]
    category, kind, region = Terminology.codesOf(first)
    return {
        "label": first.GetName() or "Segment",
        "category": category,
        "type": kind,
        "region": region,
        "rgb": [round(255 * value) for value in first.GetColor()],
        **_maker(segments),
    }


def _maker(segments: list[Any]) -> dict[str, Any]:
    """Return who made a segment: the network, the network and a person, or a person."""
    first = segments[0]
    kind = Edits.tagOf(first, "DICOM.SegmentAlgorithmType")
    name = Edits.tagOf(first, "DICOM.SegmentAlgorithmName")
    if kind not in ALGORITHM_TYPES or (kind != "MANUAL" and not name):
        kind = "MANUAL"
    if kind == "AUTOMATIC" and any(Edits.edited(segment) for segment in segments):
        kind = "SEMIAUTOMATIC"
    return {"algorithm_type": kind, "algorithm_name": None if kind == "MANUAL" else name}


def _exported(
    node: Any,
    segments: list[Any],
    made: list[dict[str, Any]],
    masks: NDArray[np.uint8],
    numbers: tuple[list[int], ...],
) -> Exported:
    def told(tag: str) -> list[str]:
        return [each for each in dict.fromkeys(Edits.tagOf(s, tag) for s in segments) if each]

    weights, thresholds = told(Terminology.WEIGHTS_TAG), told(Terminology.THRESHOLD_TAG)
    return Exported(
        made,
        masks,
        *numbers,
        title=node.GetName() or "Segmentation",
        notes="; ".join(told(Terminology.NOTE_TAG)),
        weights=weights[0] if len(weights) == 1 else None,
        threshold=float(thresholds[0]) if len(thresholds) == 1 else None,
    )
