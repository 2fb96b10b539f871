"""What follows a run: the result in 3D, in Segment Editor and in numbers."""

from __future__ import annotations

from typing import Any

import slicer

from . import Labelmaps, Tables
from .Errors import ResultError
from .Export import imageOf
from .Placement import referenceOf
from .Texts import _


def canShow3D(segmentationNode: Any) -> bool:
    """Return whether a segmentation has any depth; single slices and frames have none."""
    try:
        image = imageOf(segmentationNode)
    except ResultError:
        return True
    if image.IsA("vtkMRMLSequenceBrowserNode"):
        return False
    pixels = image.GetImageData()  # None where its file is missing
    return pixels is not None and bool(pixels.GetDimensions()[2] > 1)


def isShown3D(segmentationNode: Any) -> bool:
    """Return whether a segmentation is shown in 3D."""
    display = segmentationNode.GetDisplayNode()
    held = segmentationNode.GetSegmentation().ContainsRepresentation(Labelmaps.SURFACE)
    return bool(held and display is not None and display.GetVisibility3D())


def show3D(segmentationNode: Any, *, shown: bool) -> None:
    """Make closed surfaces and show them, or hide them."""
    if segmentationNode.GetDisplayNode() is None:
        segmentationNode.CreateDefaultDisplayNodes()
    display = segmentationNode.GetDisplayNode()
    if shown:
        segmentationNode.CreateClosedSurfaceRepresentation()
        display.SetPreferredDisplayRepresentationName3D(Labelmaps.SURFACE)
    display.SetVisibility3D(shown)


def edit(segmentationNode: Any) -> None:
    """Open Slicer's Segment Editor on a segmentation and its image.

    Raises:
        ResultError: the segmentation belongs to no image.
    """
    imageOf(segmentationNode)
    volume = referenceOf(segmentationNode)
    slicer.util.selectModule("SegmentEditor")
    editor = slicer.modules.SegmentEditorWidget.editor
    editor.setSegmentationNode(segmentationNode)
    editor.setSourceVolumeNode(volume)


def statistics(segmentationNode: Any) -> Any:
    """Show the sizes of the segments and return the table.

    For a volume they are those of Slicer's Segment Statistics; for a single slice, the area of each
    segment; for a clip, that in each frame that was looked at, with a plot over time.

    Raises:
        ResultError: the segmentation belongs to no image.
    """
    image = imageOf(segmentationNode)
    if not canShow3D(segmentationNode):
        table = Tables.areas(segmentationNode, image)
        Tables.show(table)
        if table.GetNumberOfRows() > 1:
            slicer.modules.plots.logic().ShowChartInLayout(Tables.plotOf(table))
        return table
    import SegmentStatistics  # of Slicer; slow to import

    name = _("{name} statistics").format(name=segmentationNode.GetName())
    table = Tables.tableNamed(name)
    logic = SegmentStatistics.SegmentStatisticsLogic()
    choices = logic.getParameterNode()
    choices.SetParameter("Segmentation", segmentationNode.GetID())
    choices.SetParameter("ScalarVolume", "")  # sizes; intensities of colours mean little
    logic.computeStatistics()
    logic.exportToTable(table)
    logic.showTable(table)
    return table
