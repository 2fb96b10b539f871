"""The module's entry classes, as Slicer uses them, and its own tests, which ctest runs there."""

from __future__ import annotations

import importlib
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import panel_cases
import qt_stand_ins
import slicer
import slicer_stand_ins
from PySide6 import QtWidgets

qt_stand_ins.speak_pythonqt(__name__)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    monkeypatch.syspath_prepend(str(panel_cases.MODULE.parent))
    with (
        slicer_stand_ins.running_slicer(panel_cases.MODULE, tmp_path / "Slicer.ini") as running,
        slicer_stand_ins.real_scene(),
        panel_cases.no_error_in_a_slot(),
    ):
        settings = running.qt.QSettings()
        settings.setValue("SAM2UNet/folder", str(tmp_path / "environment"))
        settings.sync()
        yield importlib.import_module("SAM2UNet")


@pytest.fixture
def widget(module: SimpleNamespace) -> Iterator[SimpleNamespace]:
    parent = qt_stand_ins.qMRMLWidget()
    QtWidgets.QVBoxLayout(parent)
    parent.isEntered = True
    widget = module.SAM2UNetWidget(parent)
    widget.setup()
    try:
        yield widget
    finally:
        widget.cleanup()


def test_the_modules_own_tests_pass(module: SimpleNamespace) -> None:
    result = unittest.TestResult()
    names = unittest.TestLoader().getTestCaseNames(module.SAM2UNetTest)
    assert len(names) >= 3
    for name in names:
        module.SAM2UNetTest(name).run(result)
    assert result.wasSuccessful(), result.failures + result.errors
    module.SAM2UNetTest().runTest()  # as the button Reload and Test does


def test_slicers_module_list_has_what_it_shows(module: SimpleNamespace) -> None:
    parent = SimpleNamespace(path=str(panel_cases.MODULE))
    module.SAM2UNet(parent)
    assert parent.title == "Segment with SAM2-UNet"
    assert parent.categories == ["Segmentation"]
    assert "not a medical device" in parent.helpText.replace("\n", " ")
    assert {"Segmentations", "Sequences", "Volumes"} <= set(parent.dependencies)


def test_the_sources_lie_in_the_checkout_or_beside_the_installed_module(
    module: SimpleNamespace, tmp_path: Path, repository: Path
) -> None:
    assert module.sourceFolder(panel_cases.MODULE) == repository
    installed = tmp_path / "a" / "b" / "qt-scripted-modules"
    (installed / "SAM2UNetSource" / "sam2unet_core").mkdir(parents=True)
    assert module.sourceFolder(installed / "SAM2UNet.py") is None
    (installed / "SAM2UNetSource" / "pyproject.toml").write_text("")
    assert module.sourceFolder(installed / "SAM2UNet.py") == installed / "SAM2UNetSource"


def test_closing_the_scene_leaves_a_panel_that_works(widget: SimpleNamespace) -> None:
    panel_cases.slice_view()
    panel_cases.colour_volume()
    widget.enter()
    assert widget.ui.inputSelector.currentNode() is not None
    widget.panel.segment.running = True
    slicer.mrmlScene.Clear()
    slicer.mrmlScene.InvokeEvent(slicer.mrmlScene.StartCloseEvent)
    assert not widget.panel.segment.running
    assert widget.panel.parameter is None
    slicer.mrmlScene.InvokeEvent(slicer.mrmlScene.EndCloseEvent)
    assert widget.panel.parameter is not None
    assert widget.ui.inputSelector.currentNode() is None
    widget.ui.thresholdSlider.value = 0.3
    assert widget.logic.getParameterNode().threshold == pytest.approx(0.3)
    widget.exit()
    widget.enter()
    assert widget.ui.thresholdSlider.value == pytest.approx(0.3)


def test_a_scene_that_is_loaded_while_the_module_is_shown_is_what_it_shows(
    widget: SimpleNamespace, tmp_path: Path
) -> None:
    widget.enter()
    widget.ui.thresholdSlider.value = 0.25
    widget.ui.whatComboBox.currentIndex = 2
    widget.ui.keepLargestCheckBox.checked = True
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    assert slicer.mrmlScene.Commit()
    widget.ui.thresholdSlider.value = 0.75
    widget.ui.whatComboBox.currentIndex = 0
    widget.ui.keepLargestCheckBox.checked = False
    assert slicer.mrmlScene.Import()
    assert widget.ui.thresholdSlider.value == pytest.approx(0.25)
    assert widget.ui.whatComboBox.currentIndex == 2
    assert widget.ui.keepLargestCheckBox.checked


def test_a_module_that_is_unloaded_stops_what_runs(widget: SimpleNamespace) -> None:
    ended = []
    widget.panel.close = lambda: ended.append(True)
    slicer.app.moduleManager().unload("AnotherModule")
    assert not ended
    slicer.app.moduleManager().unload("SAM2UNet")
    assert ended == [True]
