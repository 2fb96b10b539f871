"""After a run: the result in 3D, in Segment Editor, and in numbers."""

from __future__ import annotations

import importlib
import sys
import types
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import slicer
import slicer_sources
from SAM2UNetLib import AfterRun, Inputs, Tables
from SAM2UNetLib.Errors import ResultError
from SAM2UNetLib.SegmentationLogic import SegmentationLogic
from vtk.util import numpy_support

SHAPE = (4, 20, 30)
SPACING = (0.5, 0.8, 3.0)


@pytest.fixture
def ct(volume):
    matrix = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    return volume(np.zeros(SHAPE, np.int16), matrix=matrix, name="ct")


@pytest.fixture
def result(ct, two_classes):
    masks = np.zeros((4, 2, *SHAPE[1:]), np.uint8)
    masks[1:3, 0, 4:9, 10:20] = 1  # 2 slices of 50 pixels
    masks[2, 1, 12:15, 3:5] = 1
    node = SegmentationLogic().apply(
        Inputs.extract(ct, "volume"), masks, two_classes, surface=False
    )
    node.SetName("ct Arm")
    return node


def columns(table: Any) -> dict[str, list[float]]:
    made = {}
    for index in range(table.GetNumberOfColumns()):
        column = table.GetTable().GetColumn(index)
        made[table.GetColumnName(index)] = numpy_support.vtk_to_numpy(column).tolist()
    return made


# -- 3D


def test_the_button_makes_surfaces_and_hides_them_again(result) -> None:
    assert AfterRun.canShow3D(result)
    assert not AfterRun.isShown3D(result)
    AfterRun.show3D(result, shown=True)
    assert AfterRun.isShown3D(result)
    segment = result.GetSegmentation().GetNthSegmentID(0)
    assert result.GetClosedSurfaceInternalRepresentation(segment).GetNumberOfPoints() > 20
    AfterRun.show3D(result, shown=False)
    assert not AfterRun.isShown3D(result)


def test_a_single_slice_or_a_frame_has_no_shape(volume, sequence, two_classes) -> None:
    flat = volume(np.zeros((1, 8, 9), np.int16))
    masks = np.zeros((1, 2, 8, 9), np.uint8)
    node = SegmentationLogic().apply(Inputs.extract(flat, "volume"), masks, two_classes)
    assert not AfterRun.canShow3D(node)
    browser = sequence(np.zeros((2, 1, 8, 9, 3), np.uint8))
    node = SegmentationLogic().apply(Inputs.extract(browser, "slice"), masks, two_classes)
    assert not AfterRun.canShow3D(node)


# -- Segment Editor


def test_segment_editor_opens_on_the_segmentation_and_its_image(result, ct, monkeypatch) -> None:
    asked = []
    editor = SimpleNamespace(
        setSegmentationNode=lambda node: asked.append(("segmentation", node)),
        setSourceVolumeNode=lambda node: asked.append(("image", node)),
    )
    monkeypatch.setattr(slicer.util, "selectModule", lambda name: asked.append(("module", name)))
    widget = SimpleNamespace(editor=editor)
    monkeypatch.setattr(slicer.modules, "SegmentEditorWidget", widget, raising=False)
    AfterRun.edit(result)
    assert asked == [("module", "SegmentEditor"), ("segmentation", result), ("image", ct)]


def test_a_segmentation_without_an_image_is_not_opened(scene, monkeypatch) -> None:
    monkeypatch.setattr(slicer.util, "selectModule", pytest.fail)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    with pytest.raises(ResultError, match="belongs to no image"):
        AfterRun.edit(node)


# -- numbers


class Layouts:
    """`slicer.app.layoutManager()`, as far as tables and plots need it."""

    def __init__(self) -> None:
        self.layout = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView

    def setLayout(self, layout: int) -> None:
        self.layout = layout


@pytest.fixture
def app(scene, monkeypatch):
    """The application's layouts, selection and logics of tables and plots: Slicer's own logics."""
    logic, layouts = slicer.vtkMRMLApplicationLogic(), Layouts()
    logic.SetMRMLScene(scene)
    if logic.GetSelectionNode() is None:
        selection = slicer.vtkMRMLSelectionNode()
        selection.SetSingletonTag("Singleton")
        logic.SetSelectionNode(scene.AddNode(selection))
    layout = slicer.vtkMRMLLayoutNode()
    layout.SetSingletonTag("vtkMRMLLayoutNode")
    scene.AddNode(layout)
    made = SimpleNamespace(
        layoutManager=lambda: layouts,
        applicationLogic=lambda: logic,
        testingEnabled=lambda: True,
        translate=lambda _context, text: text,
    )
    monkeypatch.setattr(slicer, "app", made, raising=False)
    for name, kind in (("tables", "vtkSlicerTablesLogic"), ("plots", "vtkSlicerPlotsLogic")):
        owner = getattr(slicer, kind)()
        owner.SetMRMLApplicationLogic(logic)
        owner.SetMRMLScene(scene)
        held = SimpleNamespace(logic=lambda owner=owner: owner)
        monkeypatch.setattr(slicer.modules, name, held, raising=False)
    return SimpleNamespace(logic=logic, layouts=layouts)


def test_a_clip_has_a_table_of_areas_over_time_and_a_plot(sequence, two_classes, app) -> None:
    browser = sequence(np.zeros((5, 1, *SHAPE[1:], 3), np.uint8))
    masks = np.zeros((3, 2, *SHAPE[1:]), np.uint8)
    for frame in range(3):
        masks[frame, 0, :2, : 5 + frame] = 1
    part = Inputs.extract(browser, "range", between=(1, 3))
    node = SegmentationLogic().apply(part, masks, two_classes)
    table = AfterRun.statistics(node)
    assert columns(table) == {
        "Frame": [2, 3, 4],
        "Time [s]": [0.04, 0.08, 0.12],
        "Nerve [px]": [10, 12, 14],
        "Vessel [px]": [0, 0, 0],
    }
    (chart,) = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    series = slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")
    assert [each.GetYColumnName() for each in series] == ["Nerve [px]", "Vessel [px]"]
    assert {each.GetXColumnName() for each in series} == {"Time [s]"}
    assert {each.GetTableNode() for each in series} == {table}
    assert chart.GetXAxisTitle() == "Time [s]"
    assert app.logic.GetSelectionNode().GetActiveTableID() == table.GetID()
    again = AfterRun.statistics(node)
    assert again is table
    assert len(slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")) == 2


def test_a_single_slice_has_its_area_in_mm2(volume, two_classes, app) -> None:
    matrix = np.diag([-0.5, -0.8, 3.0, 1.0])
    flat = volume(np.zeros((1, 20, 30), np.int16), matrix=matrix)
    masks = np.zeros((1, 2, 20, 30), np.uint8)
    masks[0, 0, :5, :10] = 1
    node = SegmentationLogic().apply(Inputs.extract(flat, "volume"), masks, two_classes)
    found = columns(AfterRun.statistics(node))
    assert found["Slice"] == [1]
    assert found["Nerve [mm2]"] == pytest.approx([50 * 0.4])
    assert slicer.util.getNodesByClass("vtkMRMLPlotChartNode") == []


def test_the_pixels_of_a_cut_have_their_own_size(ct, slice_view) -> None:
    area = Inputs.pixelArea
    assert area(ct) == pytest.approx(0.5 * 0.8)
    view = slice_view((1, 0, 0), (0, 0, 1), (-5, -8, 4))  # coronal
    places = Inputs.places(ct, "slice", sliceNode=view)
    assert area(ct, places.parts[0].place) == pytest.approx(0.5 * 3.0)


class SegmentStatisticsLogic:
    """A stand-in of Slicer's: volume in mm3 of each segment, into a table."""

    def __init__(self) -> None:
        self.node = slicer.vtkMRMLScriptedModuleNode()

    def getParameterNode(self) -> Any:
        return self.node

    def computeStatistics(self) -> None:
        self.segmentation = slicer.mrmlScene.GetNodeByID(self.node.GetParameter("Segmentation"))

    def exportToTable(self, table: Any) -> None:
        ids = list(self.segmentation.GetSegmentation().GetSegmentIDs())
        counts = []
        for each in ids:
            image = self.segmentation.GetSegmentation().GetSegment(each)
            held = image.GetRepresentation("Binary labelmap")
            counts.append(int(numpy_support.vtk_to_numpy(held.GetPointData().GetScalars()).sum()))
        volumes = np.array(counts) * np.prod(SPACING)
        slicer.util.updateTableFromArray(table, [volumes], ["Volume [mm3] (1)"])

    def showTable(self, table: Any) -> None:
        Tables.show(table)


@pytest.fixture
def segment_statistics(app, tmp_path, monkeypatch):
    """Slicer's Segment Statistics where its sources are there, else the stand-in."""
    sources = slicer_sources.checkout()
    if sources is None:
        module = types.ModuleType("SegmentStatistics")
        module.SegmentStatisticsLogic = SegmentStatisticsLogic
        monkeypatch.setitem(sys.modules, "SegmentStatistics", module)
        yield
        return
    import panel_cases
    import slicer_stand_ins

    ours, modules = slicer.app, slicer.modules
    with slicer_stand_ins.running_slicer(panel_cases.MODULE, tmp_path / "Slicer.ini"):
        slicer.app, slicer.modules = ours, modules
        monkeypatch.setitem(sys.modules, "vtkITK", MagicMock())  # for shapes, which are not asked
        monkeypatch.setitem(sys.modules, "vtkSegmentationCorePython", slicer)
        monkeypatch.syspath_prepend(str(sources / "Modules" / "Scripted" / "SegmentStatistics"))
        plugins = importlib.import_module("SegmentStatisticsPlugins").SegmentStatisticsPluginBase
        for name in ("createDefaultOptionsWidget", "updateGuiFromParameterNode"):  # its widgets
            monkeypatch.setattr(plugins, name, lambda *_: None)
        yield
        for name in [each for each in sys.modules if each.startswith("SegmentStatistics")]:
            del sys.modules[name]


def test_a_volume_is_measured_by_slicers_segment_statistics(
    result, app, segment_statistics
) -> None:
    table = AfterRun.statistics(result)
    found = {name: values for name, values in text_columns(table).items() if "mm3" in name}
    (volumes,) = [values for name, values in found.items() if "(1)" in name or len(found) == 1]
    assert volumes == pytest.approx([100 * 1.2, 6 * 1.2])
    assert app.logic.GetSelectionNode().GetActiveTableID() == table.GetID()
    assert AfterRun.statistics(result) is table


def text_columns(table: Any) -> dict[str, list[float]]:
    """Return the columns of numbers, whatever their type."""
    made = {}
    for index in range(table.GetNumberOfColumns()):
        column = table.GetTable().GetColumn(index)
        values = [column.GetVariantValue(row) for row in range(table.GetNumberOfRows())]
        if all(value.ToString().replace(".", "").isdigit() for value in values):
            made[table.GetColumnName(index)] = [value.ToDouble() for value in values]
    return made
