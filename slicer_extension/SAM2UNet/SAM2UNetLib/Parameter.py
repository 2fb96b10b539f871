"""What the panel keeps in the scene: saved with it, and bound to the widgets by their names."""

from __future__ import annotations

from typing import Annotated, Union

import slicer
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

# The wrapper looks the annotations up by name, so the classes stand here under theirs.
ImageNode = Union[  # noqa: UP007 - the wrapper of Slicer 5.10 knows this form only
    slicer.vtkMRMLScalarVolumeNode,
    slicer.vtkMRMLVectorVolumeNode,
    slicer.vtkMRMLSequenceBrowserNode,
    None,  # "no node": the wrapper writes it when the panel opens in an empty scene
]
SliceNode = slicer.vtkMRMLSliceNode
SegmentationNode = slicer.vtkMRMLSegmentationNode


@parameterNodeWrapper
class Parameter:
    """The choices of the first tab.

    Attributes:
        inputNode: volume, colour volume or sequence browser.
        what: "slice", "range", "volume" or "sequence".
        sliceView: whose current slice is meant by "slice".
        first: first slice or frame of "range", from 1.
        last: last one of it.
        task: name of the task; empty takes the first.
        bundle: folder of another bundle, or empty.
        force: run on images the task is not made for.
        outputSegmentation: where the result goes; None makes a new one.
        threshold: probability from which a pixel counts.
        minimumSize: in pixels.
        smoothing: standard deviation in pixels; 0 is none.
        keepLargest: keep the largest island only.
    """

    inputNode: ImageNode
    what: str = "slice"
    sliceView: SliceNode
    first: Annotated[int, WithinRange(1, 999999)] = 1
    last: Annotated[int, WithinRange(0, 999999)] = 0
    task: str = ""
    bundle: str = ""
    force: bool = False
    outputSegmentation: SegmentationNode
    threshold: Annotated[float, WithinRange(0.0, 1.0)] = 0.5  # any that a task may have
    minimumSize: Annotated[int, WithinRange(0, 1000000)] = 0
    smoothing: Annotated[float, WithinRange(0.0, 20.0)] = 0.0
    keepLargest: bool = False
