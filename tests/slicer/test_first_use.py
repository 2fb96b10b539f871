"""Open an image, open the module, press the button: whatever comes first."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import panel_cases
import qt_stand_ins
import slicer
from test_widget_states import asked, say

qt_stand_ins.speak_pythonqt(__name__)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[SimpleNamespace]:
    with panel_cases.opened_panel(tmp_path) as opened:
        yield opened


def views(*names: str) -> list[Any]:
    """Make slice views with what Slicer makes for each: a slice node and a composite node."""
    made = []
    for name in names:
        composite = slicer.vtkMRMLSliceCompositeNode()
        composite.SetLayoutName(name)
        slicer.mrmlScene.AddNode(composite)
        made.append(panel_cases.slice_view(name))
    return made


def show(volume: Any, view: str) -> None:
    """Put a volume into the background of a view."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if composite.GetLayoutName() == view:
            composite.SetBackgroundVolumeID(volume.GetID())


def stack(name: str = "stack", slices: int = 120) -> Any:
    """Return a grey volume with slices along its third axis, 2 mm apart."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, np.zeros((slices, 20, 30), np.int16))
    node.SetSpacing(0.5, 0.5, 2.0)
    return node


def clip(frames: int = 4) -> Any:
    """Return the browser of a clip of colours."""
    held = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "clip frames")
    frame = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "clip")
    for index in range(frames):
        pixels = np.full((1, 20, 30, 3), index, np.uint8)
        slicer.util.updateVolumeFromArray(frame, pixels)
        held.SetDataNodeAtValue(frame, str(index))
    slicer.mrmlScene.RemoveNode(frame)
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "clip browser")
    browser.SetAndObserveMasterSequenceNodeID(held.GetID())
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    return browser


def test_what_was_shown_before_the_module_opened_is_chosen_with_its_view(tmp_path: Path) -> None:
    def load() -> None:
        views("Red", "Yellow")
        stack("first")
        show(stack("shown"), "Yellow")

    with panel_cases.opened_panel(tmp_path, before=load) as opened:
        say(opened, ("offer", panel_cases.offer()))
        assert opened.ui.inputSelector.currentNode().GetName() == "shown"
        assert opened.ui.sliceViewSelector.currentNode().GetName() == "Yellow"
        assert opened.ui.applyButton.enabled
        opened.ui.applyButton.click()
        ((_, fields),) = asked(opened, "start")
        assert fields["parameter"].inputNode.GetName() == "shown"


def test_what_is_loaded_while_the_module_is_open_is_chosen(opened: SimpleNamespace) -> None:
    say(opened, ("offer", panel_cases.offer()))
    assert "Load an image first" in opened.ui.statusLabel.text
    views("Red", "Green")
    stack("first")
    node = stack("second")
    show(node, "Green")
    panel_cases.live(lambda: opened.ui.inputSelector.currentNode() is node)
    assert opened.ui.sliceViewSelector.currentNode().GetName() == "Green"
    assert opened.ui.applyButton.enabled


def test_what_the_user_picked_stays_when_another_image_is_shown(opened: SimpleNamespace) -> None:
    views("Red")
    say(opened, ("offer", panel_cases.offer()))
    first, second = stack("first"), stack("second")
    show(second, "Red")
    opened.ui.inputSelector.setCurrentNode(first)
    opened.ui.inputSelector.nodeActivated.emit(first)
    show(stack("third"), "Red")
    opened.app.processEvents()
    assert opened.logic.parameter.inputNode is first


def test_an_image_whose_view_is_not_there_is_segmented_in_the_first_view(
    opened: SimpleNamespace,
) -> None:
    views("Red", "Yellow")
    say(opened, ("offer", panel_cases.offer()))
    stack()
    panel_cases.live(lambda: opened.ui.inputSelector.currentNode() is not None)
    assert opened.ui.sliceViewSelector.currentNode().GetName() == "Red"


def test_the_status_line_says_which_slice_that_is_and_follows_the_view(
    opened: SimpleNamespace,
) -> None:
    (red,) = views("Red")
    say(opened, ("offer", panel_cases.offer()))
    show(stack(), "Red")
    panel_cases.live(lambda: opened.ui.inputSelector.currentNode() is not None)
    red.SetSliceOffset(82.0)
    assert opened.ui.statusLabel.text == "Ready: Red, slice 42 of 120."
    assert opened.ui.placeLabel.text == "Red, slice 42 of 120"
    red.SetSliceOffset(0.0)
    assert opened.ui.placeLabel.text == "Red, slice 1 of 120"
    red.SetSliceOffset(900.0)
    assert not opened.ui.applyButton.enabled
    assert "slice view is outside the volume: move" in opened.ui.statusLabel.text
    red.SetSliceOffset(10.0)
    assert opened.ui.statusLabel.text == "Ready: Red, slice 6 of 120."
    red.GetSliceToRAS().SetElement(2, 0, 0.4)
    red.UpdateMatrices()
    assert opened.ui.placeLabel.text == "Red, oblique"


def test_a_clip_is_one_entry_and_its_shown_frame_is_the_one_that_is_meant(
    opened: SimpleNamespace,
) -> None:
    views("Red")
    say(opened, ("offer", panel_cases.offer()))
    browser = clip()
    proxy = browser.GetProxyNode(browser.GetMasterSequenceNode())
    show(proxy, "Red")
    panel_cases.live(lambda: opened.ui.inputSelector.currentNode() is proxy)
    names = [
        opened.ui.inputSelector._box.itemText(n) for n in range(opened.ui.inputSelector._box.count)
    ]
    assert names == [proxy.GetName()]
    assert "vtkMRMLSequenceBrowserNode" not in opened.ui.inputSelector.nodeTypes
    assert opened.ui.whatComboBox.currentText == "Current frame"
    browser.SetSelectedItemNumber(2)
    assert opened.ui.placeLabel.text == "Frame 3 of 4"
    assert not opened.ui.sliceViewSelector.isVisibleTo(opened.form)


def test_each_grey_button_says_what_to_do(opened: SimpleNamespace) -> None:
    grey = [
        opened.ui.applyButton,
        opened.ui.undoButton,
        opened.ui.show3DButton,
        opened.ui.editButton,
        opened.ui.statisticsButton,
        opened.ui.exportButton,
        opened.ui.batchRunButton,
        opened.ui.batchCancelButton,
        opened.ui.batchReportButton,
        opened.ui.removeButton,
    ]
    words = (
        "first",
        "no run",
        "no environment",
        "Nothing runs",
        "when the run has ended",
        "Asking",
    )
    for button in grey:
        assert not button.enabled, button.objectName
        assert any(word in button.toolTip for word in words), (button.objectName, button.toolTip)


def test_the_button_has_a_shortcut_that_a_new_text_does_not_take_away(
    opened: SimpleNamespace,
) -> None:
    views("Red")
    say(opened, ("offer", panel_cases.offer()))
    show(stack(), "Red")
    panel_cases.live(lambda: opened.ui.applyButton.enabled)
    assert opened.ui.applyButton.shortcut.toString() == "Ctrl+Return"
    assert "Ctrl+Return" in opened.ui.applyButton.toolTip
    opened.ui.applyButton.click()
    assert opened.ui.applyButton.text == "Cancel"
    assert opened.ui.applyButton.shortcut.toString() == "Ctrl+Return"


@pytest.mark.parametrize(("spacing", "unit"), [((0.5, 0.5, 2.0), " mm2"), ((1.0, 1.0, 1.0), " px")])
def test_the_minimum_size_is_in_mm2_where_the_spacing_is_known(
    opened: SimpleNamespace, spacing: tuple[float, float, float], unit: str
) -> None:
    views("Red")
    node = panel_cases.colour_volume()
    node.SetSpacing(*spacing)
    say(opened, ("offer", panel_cases.offer()))
    panel_cases.live(lambda: opened.ui.inputSelector.currentNode() is node)
    opened.panel.segment.refresh()
    assert opened.ui.minimumSizeSpinBox.suffix == unit


def test_the_folder_tab_shows_the_task_and_the_threshold_that_it_will_use(
    opened: SimpleNamespace,
) -> None:
    say(opened, ("offer", panel_cases.offer()))
    opened.ui.taskComboBox.currentIndex = 1
    opened.ui.tabWidget.currentIndex = 1
    text = opened.ui.batchTaskLabel.text
    assert text == "Nerve in ultrasound, threshold 0.4, device: Automatic"
    opened.ui.tabWidget.currentIndex = 0
    opened.ui.thresholdSlider.value = 0.7
    opened.ui.tabWidget.currentIndex = 1
    assert "threshold 0.7" in opened.ui.batchTaskLabel.text
    assert opened.panel.segment.batchOptions()["threshold"] == pytest.approx(0.7)


# -- a scene that is loaded while the panel is open


def saved(folder: Path) -> Path:
    """Save the scene as a .mrml file, and return it."""
    slicer.mrmlScene.SetURL(str(folder / "scene.mrml"))
    slicer.mrmlScene.SetRootDirectory(str(folder))
    assert slicer.mrmlScene.Commit()
    return folder / "scene.mrml"


def test_a_scene_that_is_loaded_shows_and_runs_what_it_says(
    opened: SimpleNamespace, tmp_path: Path
) -> None:
    views("Red", "Yellow")
    say(opened, ("offer", panel_cases.offer()))
    show(stack("one"), "Red")
    panel_cases.live(lambda: opened.ui.applyButton.enabled)
    opened.ui.taskComboBox.currentIndex = 1
    opened.ui.whatComboBox.currentIndex = 1
    opened.ui.firstSpinBox.value, opened.ui.lastSpinBox.value = 7, 9
    opened.ui.thresholdSlider.value = 0.85
    opened.ui.weightsPath.currentPath = "/weights/mine.safetensors"
    file = saved(tmp_path)
    opened.ui.taskComboBox.currentIndex = 0
    opened.ui.whatComboBox.currentIndex = 2
    opened.ui.weightsPath.currentPath = ""
    slicer.mrmlScene.SetURL(str(file))
    assert slicer.mrmlScene.Import()
    assert opened.ui.taskComboBox.currentText == "Nerve in ultrasound"
    assert opened.ui.whatComboBox.currentIndex == 1
    assert (opened.ui.firstSpinBox.value, opened.ui.lastSpinBox.value) == (7, 9)
    assert opened.ui.thresholdSlider.value == pytest.approx(0.85)
    assert opened.ui.weightsPath.currentPath == "/weights/mine.safetensors"


def test_a_scene_with_another_bundle_shows_it_and_asks_before_it_runs(
    opened: SimpleNamespace, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views("Red")
    say(opened, ("offer", panel_cases.offer()))
    show(stack(), "Red")
    panel_cases.live(lambda: opened.ui.applyButton.enabled)
    node = opened.logic.parameter.parameterNode
    bundle = str(repository / "monai_bundle")
    with slicer.util.NodeModify(node):
        node.SetParameter("bundle", bundle)
        node.SetParameter("task", "polyp")
    entry = opened.panel.segment.choice.current
    assert (entry.name, str(entry.bundle)) == ("polyp", bundle)
    questions, answers = [], iter([False, True])
    monkeypatch.setattr(
        slicer.util,
        "confirmOkCancelDisplay",
        lambda text, *_: questions.append(text) or next(answers),
    )
    opened.ui.applyButton.click()
    assert not asked(opened, "start")
    opened.ui.applyButton.click()
    ((_, fields),) = asked(opened, "start")
    assert str(fields["entry"].bundle) == bundle
    assert "did not come with this module" in questions[0]
    say(opened, ("cancelled",))
    opened.ui.applyButton.click()  # it is trusted now
    assert len(questions) == 2


@pytest.mark.parametrize(
    ("bundle", "task", "words"),
    [
        ("/nowhere/bundle", "spleen", "made with another bundle"),
        ("", "spleen", "asks for the task spleen, which this environment does not offer"),
    ],
)
def test_a_task_that_is_not_there_is_never_replaced_by_another(
    opened: SimpleNamespace, bundle: str, task: str, words: str
) -> None:
    views("Red")
    say(opened, ("offer", panel_cases.offer()))
    show(stack(), "Red")
    panel_cases.live(lambda: opened.ui.applyButton.enabled)
    node = opened.logic.parameter.parameterNode
    with slicer.util.NodeModify(node):
        node.SetParameter("bundle", bundle)
        node.SetParameter("task", task)
    assert not opened.ui.applyButton.enabled
    assert words in opened.ui.statusLabel.text
    assert node.GetParameter("task") == task
    opened.ui.taskComboBox.currentIndex = 0
    assert opened.ui.applyButton.enabled
    assert (node.GetParameter("task"), node.GetParameter("bundle")) == ("polyp", "")


def test_an_image_with_fewer_slices_is_taken_and_its_range_fits(opened: SimpleNamespace) -> None:
    views("Red")
    say(opened, ("offer", panel_cases.offer()))
    long, short = stack("long", 120), stack("short", 5)
    panel_cases.live(lambda: opened.ui.inputSelector.currentNode() is not None)
    opened.ui.inputSelector.setCurrentNode(long)
    opened.ui.whatComboBox.currentIndex = 1
    opened.ui.firstSpinBox.value, opened.ui.lastSpinBox.value = 50, 60
    opened.ui.inputSelector.setCurrentNode(short)
    assert opened.ui.inputSelector.currentNode() is short
    assert opened.logic.parameter.inputNode is short
    assert (opened.ui.firstSpinBox.value, opened.ui.lastSpinBox.value) == (1, 5)
