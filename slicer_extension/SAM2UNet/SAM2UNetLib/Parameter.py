"""What the panel keeps in the scene: saved with it, and bound to the widgets by their names."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Union

import slicer
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from .Texts import _

# The wrapper looks the annotations up by name, so the classes stand here under theirs.
ImageNode = Union[  # noqa: UP007 - the wrapper of Slicer 5.10 knows this form only
    slicer.vtkMRMLScalarVolumeNode,
    slicer.vtkMRMLVectorVolumeNode,
    None,  # "no node": the wrapper writes it when the panel opens in an empty scene
]
SliceNode = slicer.vtkMRMLSliceNode
SegmentationNode = slicer.vtkMRMLSegmentationNode


class What(enum.StrEnum):
    """What of the image is segmented; the scene keeps the name, the list shows the label."""

    slice = "slice"
    range = "range"
    volume = "volume"
    sequence = "sequence"

    def label(self) -> str:
        """Return what the user reads."""
        return {
            What.slice: _("Current slice"),
            What.range: _("Range of slices"),
            What.volume: _("Whole volume"),
            What.sequence: _("All frames of a video"),
        }[self]


@parameterNodeWrapper
class Parameter:
    """The choices of the first tab.

    Attributes:
        inputNode: volume or colour volume; the proxy of a sequence stands for its browser.
        what: what of it.
        sliceView: whose current slice is meant by `What.slice`.
        first: first slice or frame of `What.range`, from 1.
        last: last one of it.
        task: name of the task; empty takes the first.
        bundle: folder of another bundle, or empty.
        weights: weights file, or empty for the task's own.
        force: run on images the task is not made for.
        outputSegmentation: where the result goes; None makes a new one.
        threshold: probability from which a pixel counts.
        minimumSize: in mm2 where the image's spacing is known, else in pixels.
        smoothing: standard deviation in pixels; 0 is none.
        keepLargest: keep the largest island only.
    """

    inputNode: ImageNode
    what: What = What.slice
    sliceView: SliceNode
    first: Annotated[int, WithinRange(1, 999999)] = 1
    last: Annotated[int, WithinRange(0, 999999)] = 0
    task: str = ""
    bundle: str = ""
    weights: str = ""
    force: bool = False
    outputSegmentation: SegmentationNode
    threshold: Annotated[float, WithinRange(0.0, 1.0)] = 0.5  # any that a task may have
    minimumSize: Annotated[float, WithinRange(0.0, 1000000.0)] = 0.0
    smoothing: Annotated[float, WithinRange(0.0, 20.0)] = 0.0
    keepLargest: bool = False


def parameterOf(node: Any) -> Parameter:
    """Return the choices that a parameter node keeps, those of earlier versions too.

    Version 1 could keep a sequence browser as the image, where the proxy of its frames stands now.

    Args:
        node: vtkMRMLScriptedModuleNode.
    """
    browser = node.GetNodeReference("inputNode.2")
    if browser is not None and browser.IsA("vtkMRMLSequenceBrowserNode"):
        proxy = browser.GetProxyNode(browser.GetMasterSequenceNode())
        node.UnsetParameter("inputNode.2")
        node.RemoveNodeReferenceIDs("inputNode.2")
        made = Parameter(node)
        if proxy is not None and proxy.IsA("vtkMRMLVolumeNode"):
            made.inputNode = proxy
        return made
    return Parameter(node)
