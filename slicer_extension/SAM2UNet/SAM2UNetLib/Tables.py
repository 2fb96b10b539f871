"""Areas of segments, slice by slice or frame by frame, as tables and plots of the scene."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer

from .Clips import Clip
from .Export import exported
from .InputInfo import volumeSequence
from .Inputs import pixelArea
from .Texts import _

CHART_SUFFIX = " plot"


def areas(segmentationNode: Any, image: Any) -> Any:
    """Return a table of the area of each segment in each slice or frame that was looked at.

    Areas are in mm2 where the image's spacing is known, else in pixels.

    Args:
        segmentationNode: the segmentation.
        image: its volume or sequence browser.
    """
    content = exported(segmentationNode)
    clip = image.IsA("vtkMRMLSequenceBrowserNode")
    frames = volumeSequence(image) if clip else None
    source = Clip.of(frames) if clip else None
    scale = 1 if source is None else source.scale
    area = pixelArea(frames.GetNthDataNode(0) if clip else image, scale=scale)
    unit = _("px") if area is None else "mm2"
    columns = {_("Frame") if clip else _("Slice"): np.array(content.frames) + 1}
    if clip and frames.GetIndexUnit() == "s":
        values = [float(frames.GetNthIndexValue(item)) for item in content.items]
        columns[_("Time [s]")] = np.array(values)
    for number, segment in enumerate(content.segments):
        counts = np.zeros(len(content.frames), np.int64)
        counts[content.maskFrames] = [int(one.sum()) for one in content.masks[:, number]]
        name = f"{segment['label']} [{unit}]"
        while name in columns:
            name += " "
        columns[name] = counts * (area or 1)
    table = tableNamed(_("{name} areas").format(name=segmentationNode.GetName()))
    slicer.util.updateTableFromArray(table, list(columns.values()), list(columns))
    return table


def plotOf(table: Any) -> Any:
    """Return a chart of a table of areas: one line for each segment, over time or frames."""
    names = [table.GetColumnName(index) for index in range(table.GetNumberOfColumns())]
    timed = names[1].endswith("[s]")
    across, lines = names[int(timed)], names[1 + int(timed) :]
    chart = _named("vtkMRMLPlotChartNode", table.GetName() + CHART_SUFFIX)
    chart.RemoveAllPlotSeriesNodeIDs()
    chart.SetTitle(table.GetName())
    chart.SetXAxisTitle(across)
    chart.SetYAxisTitle(_("Area"))
    for name in lines:
        series = _named("vtkMRMLPlotSeriesNode", f"{table.GetName()} {name}")
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName(across)
        series.SetYColumnName(name)
        series.SetPlotType(series.PlotTypeScatter)
        series.SetMarkerStyle(series.MarkerStyleNone)
        series.SetUniqueColor()
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    return chart


def show(table: Any) -> None:
    """Show a table in the layout, as Slicer's Segment Statistics does."""
    layouts = slicer.app.layoutManager()
    if layouts is None:
        return
    layouts.setLayout(slicer.modules.tables.logic().GetLayoutWithTable(layouts.layout))
    logic = slicer.app.applicationLogic()
    logic.GetSelectionNode().SetActiveTableID(table.GetID())
    logic.PropagateTableSelection()


def tableNamed(name: str) -> Any:
    """Return the table of that name, emptied; a new one if there is none."""
    table = _named("vtkMRMLTableNode", name)
    table.RemoveAllColumns()
    return table


def _named(kind: str, name: str) -> Any:
    for node in slicer.util.getNodesByClass(kind):
        if node.GetName() == name:
            return node
    return slicer.mrmlScene.AddNewNodeByClass(kind, name)
