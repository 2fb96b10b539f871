"""What a person painted is never overwritten without a question."""

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
from mask_cases import masksOf, sequenceMasks
from SAM2UNetLib import Edits, Inputs
from SAM2UNetLib.Errors import ResultError
from SAM2UNetLib.FrameFollower import FrameFollower
from SAM2UNetLib.SegmentationLogic import SegmentationLogic, overwritten
from SAM2UNetLib.SequenceResult import keepShown
from test_scene_files import saved_and_opened
from test_widget_states import asked, say

qt_stand_ins.speak_pythonqt(__name__)
SHAPE = (6, 8, 10)


def some(count: int = SHAPE[0], shift: int = 0) -> np.ndarray:
    """Masks `(N, 2, H, W)` of two classes."""
    masks = np.zeros((count, 2, *SHAPE[1:]), np.uint8)
    masks[:, 0, 2:5, 1 + shift : 4 + shift] = 1
    masks[:, 1, 6, 5:9] = 1
    return masks


def paint(
    node: Any, volume: Any, where: tuple[Any, ...], *, segment: int = 0, value: int = 1
) -> None:
    """Paint as Segment Editor does."""
    segment_id = node.GetSegmentation().GetNthSegmentID(segment)
    voxels = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume).copy()
    voxels[where] = value
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, segment_id, volume)


@pytest.fixture
def ct(volume):
    return volume(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), name="ct")


@pytest.fixture
def result(ct, two_classes):
    logic = SegmentationLogic()
    node = logic.apply(Inputs.extract(ct, "volume"), some(), two_classes)
    return SimpleNamespace(logic=logic, node=node, volume=ct, task=two_classes)


def segments(node: Any) -> list[Any]:
    return Edits.segmentsOf(node.GetSegmentation())


def test_what_a_run_wrote_is_no_edit_whoever_looks(result) -> None:
    assert not result.logic.isEdited
    assert not any(Edits.edited(segment) for segment in segments(result.node))
    result.node.GetSegmentation().GetNthSegment(0).SetColor(1, 0, 0)
    result.node.GetSegmentation().GetNthSegment(0).SetName("My name")
    assert not result.logic.isEdited
    result.node.GetSegmentation().CollapseBinaryLabelmaps(True)  # as Segment Editor does
    assert not result.logic.isEdited


@pytest.mark.parametrize("value", [0, 1])
def test_a_voxel_that_was_painted_or_erased_is_an_edit(result, value) -> None:
    where = (2, 3, 2) if value == 0 else (5, 7, 9)
    paint(result.node, result.volume, where, value=value)
    assert result.logic.isEdited
    assert [Edits.edited(segment) for segment in segments(result.node)] == [True, False]
    result.logic.leave()  # the user asked to start again
    result.logic.complete(some(shift=1))
    assert not result.logic.isEdited


def test_a_segment_that_was_removed_is_an_edit(result) -> None:
    result.node.GetSegmentation().RemoveSegment(result.node.GetSegmentation().GetNthSegmentID(1))
    assert result.logic.isEdited


def test_an_edit_is_known_in_a_scene_that_was_saved(result, tmp_path) -> None:
    paint(result.node, result.volume, (5, 7, 9))
    saved_and_opened(slicer.mrmlScene, tmp_path)
    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert [Edits.edited(segment) for segment in segments(node)] == [True, False]


def test_only_what_would_be_written_over_is_asked_about(result) -> None:
    where, task = (2, 7, 9), result.task
    paint(result.node, result.volume, where)
    third = Inputs.places(result.volume, "range", between=(2, 2))
    beside = Inputs.places(result.volume, "range", between=(4, 4))
    assert overwritten(result.node, third, task) == ["Nerve"]
    paint(result.node, result.volume, np.s_[4], value=0)
    assert overwritten(result.node, beside, task) == []  # it was erased for that
    other = {**task, "name": "another"}
    assert overwritten(result.node, third, other) == []


def test_a_run_beside_an_edit_keeps_it_and_keeps_it_known(result) -> None:
    paint(result.node, result.volume, (2, 7, 9))
    again = Inputs.extract(result.volume, "range", between=(4, 4))
    logic = SegmentationLogic()
    logic.apply(again, some(1, shift=3), result.task, segmentationNode=result.node)
    masks = masksOf(result.node, result.volume, result.task)
    assert masks[2, 0, 7, 9] == 1
    assert np.array_equal(masks[4], some(1, shift=3)[0])
    assert not logic.isEdited  # nothing since that run
    assert [Edits.edited(segment) for segment in segments(result.node)] == [True, False]
    logic.undo()
    assert [Edits.edited(segment) for segment in segments(result.node)] == [True, False]
    whole = SegmentationLogic()
    extraction = Inputs.extract(result.volume, "volume")
    whole.apply(extraction, some(), result.task, segmentationNode=result.node)
    assert not any(Edits.edited(segment) for segment in segments(result.node))


def test_an_edit_of_one_frame_of_a_clip_is_an_edit(sequence, two_classes) -> None:
    frames = np.zeros((4, 1, *SHAPE[1:], 3), np.uint8)
    browser, logic = sequence(frames), SegmentationLogic()
    proxy = logic.apply(Inputs.extract(browser, "sequence"), some(4), two_classes)
    assert not logic.isEdited
    browser.SetSelectedItemNumber(2)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    image = browser.GetProxyNode(browser.GetMasterSequenceNode())
    paint(proxy, image, (0, 7, 9))
    assert logic.isEdited
    for item, names in ((1, []), (2, ["Nerve"])):
        places = Inputs.places(browser, "range", between=(item, item))
        assert overwritten(proxy, places, two_classes) == names
    keepShown(browser, proxy)
    browser.SetSelectedItemNumber(0)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    assert logic.isEdited
    masks, _ = sequenceMasks(proxy, browser, two_classes)
    assert masks[2, 0, 7, 9] == 1


# -- during a run


def test_what_is_painted_during_a_run_is_kept_and_the_result_goes_beside_it(
    ct, two_classes
) -> None:
    logic = SegmentationLogic()
    begun = logic.begin(Inputs.extract(ct, "volume"), two_classes)
    logic.updatePartial(0, some()[0])
    paint(begun, ct, (5, 7, 9))
    painted = masksOf(begun, ct, two_classes)
    made = logic.complete(some())
    assert made is not begun
    assert np.array_equal(masksOf(begun, ct, two_classes), painted)
    assert np.array_equal(masksOf(made, ct, two_classes), some())


def test_what_is_painted_during_a_run_on_a_clip_is_kept(sequence, two_classes) -> None:
    browser, logic = sequence(np.zeros((4, 1, *SHAPE[1:], 3), np.uint8)), SegmentationLogic()
    begun = logic.begin(Inputs.extract(browser, "sequence"), two_classes)
    logic.updatePartial(0, some(1)[0])
    image = browser.GetProxyNode(browser.GetMasterSequenceNode())
    paint(begun, image, (0, 7, 9))
    made = logic.complete(some(4))
    assert made is not begun
    assert sequenceMasks(begun, browser, two_classes)[0][0, 0, 7, 9] == 1
    assert np.array_equal(sequenceMasks(made, browser, two_classes)[0], some(4))


def test_a_run_during_which_nobody_paints_writes_where_it_was_to(sequence, two_classes) -> None:
    browser, logic = sequence(np.zeros((4, 1, *SHAPE[1:], 3), np.uint8)), SegmentationLogic()
    begun = logic.begin(Inputs.extract(browser, "sequence"), two_classes)
    for picture, one in enumerate(some(4)):
        logic.updatePartial(picture, one)
        browser.SetSelectedItemNumber(picture)
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    assert logic.complete(some(4)) is begun
    logic.leave()
    assert logic.complete(some(4, shift=1)) is begun


def test_cancelling_does_not_remove_what_was_painted_meanwhile(ct, two_classes) -> None:
    logic = SegmentationLogic()
    begun = logic.begin(Inputs.extract(ct, "volume"), two_classes)
    paint(begun, ct, (5, 7, 9))
    assert not logic.undo(painted=False)
    assert begun.GetScene() is not None
    other = logic.begin(Inputs.extract(ct, "volume"), two_classes)
    assert logic.undo(painted=False)
    assert other.GetScene() is None


def test_another_threshold_asked_for_during_a_run_takes_nothing_painted_meanwhile(
    ct, two_classes
) -> None:
    logic = SegmentationLogic()
    begun = logic.begin(Inputs.extract(ct, "volume"), two_classes)
    paint(begun, ct, (5, 7, 9))
    logic.leave()  # as `Session.rethreshold` does, before there is a result
    assert logic.complete(some()) is not begun
    assert masksOf(begun, ct, two_classes)[5, 0, 7, 9] == 1


def test_what_is_painted_while_a_threshold_is_computed_stays(result) -> None:
    result.logic.leave()
    paint(result.node, result.volume, (5, 7, 9))
    painted = masksOf(result.node, result.volume, result.task)
    with pytest.raises(ResultError, match="you painted while"):
        result.logic.complete(some(shift=1))
    assert np.array_equal(masksOf(result.node, result.volume, result.task), painted)


def test_undo_while_a_long_result_is_written_ends_the_writing(sequence, two_classes) -> None:
    browser, logic = sequence(np.zeros((5, 1, *SHAPE[1:], 3), np.uint8)), SegmentationLogic()
    part = Inputs.extract(browser, "sequence")
    node = logic.apply(part, some(5), two_classes)
    again = SegmentationLogic()
    again.begin(part, two_classes, segmentationNode=node)
    writing = again.completeFound(iter(enumerate(some(5, shift=3))))
    next(writing), next(writing)
    again.undo()
    assert list(writing) == []
    assert np.array_equal(sequenceMasks(node, browser, two_classes)[0], some(5))


def test_undo_brings_back_how_a_segment_was_made(result) -> None:
    tags = {"SAM2UNet.Weights": "aa", "SAM2UNet.Threshold": "0.5", "SAM2UNet.Note": "first"}
    result.logic.leave()
    result.logic.complete(some(), tags=tags)
    result.node.GetSegmentation().GetNthSegment(0).SetTag("TerminologyEntry", "of a person")
    again = SegmentationLogic()
    extraction = Inputs.extract(result.volume, "volume")
    other = {"SAM2UNet.Weights": "bb", "SAM2UNet.Threshold": "0.9", "SAM2UNet.Note": "second"}
    again.apply(
        extraction,
        some(shift=1),
        result.task,
        segmentationNode=result.node,
        algorithmName="another",
        tags=other,
    )
    segment = result.node.GetSegmentation().GetNthSegment(0)
    assert {name: Edits.tagOf(segment, name) for name in other} == other
    again.undo()
    assert {name: Edits.tagOf(segment, name) for name in tags} == tags
    assert Edits.tagOf(segment, "DICOM.SegmentAlgorithmName") == "SAM2-UNet arm 1.2.0"
    assert Edits.tagOf(segment, "TerminologyEntry") == "of a person"


def test_the_segmentation_of_one_image_never_becomes_that_of_another(result, volume) -> None:
    """Frames of one size have the same grid: the grid says nothing."""
    other = volume(np.zeros(SHAPE, np.int16), name="another patient")
    before = masksOf(result.node, result.volume, result.task)
    with pytest.raises(ResultError, match="is the segmentation of ct, not of another patient"):
        SegmentationLogic().begin(
            Inputs.extract(other, "volume"), result.task, segmentationNode=result.node
        )
    assert np.array_equal(masksOf(result.node, result.volume, result.task), before)


def test_in_a_scene_that_was_opened_again_frames_without_findings_can_be_drawn_in(
    sequence, two_classes, tmp_path
) -> None:
    browser, logic = sequence(np.zeros((4, 1, *SHAPE[1:], 3), np.uint8)), SegmentationLogic()
    logic.begin(Inputs.extract(browser, "sequence"), two_classes)
    list(logic.completeFound(iter([(1, some(1)[0])])))
    saved_and_opened(slicer.mrmlScene, tmp_path)
    browser = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
    proxy = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    FrameFollower.attachAll()
    FrameFollower.attachAll()  # as each time the module is opened
    browser.SetSelectedItemNumber(3)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    image = browser.GetProxyNode(browser.GetMasterSequenceNode())
    assert proxy.GetSegmentation().GetNumberOfSegments() == 2
    paint(proxy, image, (0, 7, 9))
    keepShown(browser, proxy)
    browser.SetSelectedItemNumber(0)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    masks, items = sequenceMasks(proxy, browser, two_classes)
    assert masks[items.index(3), 0, 7, 9] == 1


# -- Slicer's own undo


class SegmentEditor:
    """The widget of Slicer's Segment Editor, with Slicer's own history of a segmentation."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.history = slicer.vtkSegmentationHistory()
        self.history.SetSegmentation(node.GetSegmentation())

    def segmentationNode(self) -> Any:
        return self.node

    def saveStateForUndo(self) -> None:
        self.history.SaveState()


def test_undo_in_segment_editor_works_across_a_run(result, monkeypatch) -> None:
    editor = SegmentEditor(result.node)
    monkeypatch.setattr(
        slicer.modules, "SegmentEditorWidget", SimpleNamespace(editor=editor), raising=False
    )
    editor.saveStateForUndo()
    paint(result.node, result.volume, (5, 7, 9))
    painted = masksOf(result.node, result.volume, result.task)
    logic = SegmentationLogic()
    extraction = Inputs.extract(result.volume, "volume")
    logic.apply(extraction, some(shift=2), result.task, segmentationNode=result.node)
    assert editor.history.RestorePreviousState()
    assert np.array_equal(masksOf(result.node, result.volume, result.task), painted)
    assert editor.history.RestorePreviousState()
    assert np.array_equal(masksOf(result.node, result.volume, result.task), some())
    assert editor.history.RestoreNextState()
    assert editor.history.RestoreNextState()
    assert np.array_equal(masksOf(result.node, result.volume, result.task), some(shift=2))


def test_undo_of_the_scene_brings_back_what_a_run_replaced(result) -> None:
    slicer.mrmlScene.SetUndoOn()
    result.node.UndoEnabledOn()
    paint(result.node, result.volume, (5, 7, 9))
    painted = masksOf(result.node, result.volume, result.task)
    extraction = Inputs.extract(result.volume, "volume")
    SegmentationLogic().apply(extraction, some(shift=2), result.task, segmentationNode=result.node)
    slicer.mrmlScene.Undo()
    assert np.array_equal(masksOf(result.node, result.volume, result.task), painted)
    slicer.mrmlScene.SetUndoOff()


# -- the panel


@pytest.fixture
def ready(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A panel after a run whose result is real and whose runs say what they are told."""
    with panel_cases.opened_panel(tmp_path) as opened:
        panel_cases.slice_view()
        opened.image = panel_cases.colour_volume()
        say(opened, ("offer", panel_cases.offer()))
        panel_cases.live(lambda: opened.ui.applyButton.enabled)
        opened.ui.applyButton.click()
        opened.node = segmentation(opened.image)
        opened.logic.canUndo = True
        say(opened, ("finished", opened.node))
        yield opened


def segmentation(image: Any, name: str = "polyp") -> Any:
    """Return a segmentation of an image with a segment as a run of the task makes it."""
    task = {**panel_cases.POLYP, "version": "1", "classes": [CLASS]}
    masks = np.zeros((1, 1, 48, 64), np.uint8)
    masks[0, 0, 10:30, 20:44] = 1
    node = SegmentationLogic().apply(Inputs.extract(image, "volume"), masks, task)
    node.SetName(name)
    return node


CLASS = {
    "value": 1,
    "name": "polyp",
    "label": "Polyp",
    "category": ["SCT", "49755003", "Morphologically Abnormal Structure"],
    "type": ["SCT", "68496003", "Polyp of colon"],
    "region": None,
    "rgb": [86, 180, 233],
}


def move(opened: SimpleNamespace, value: float) -> None:
    opened.ui.thresholdSlider.value = value
    opened.panel.segment.onTimer()


@pytest.mark.parametrize("name", ["thresholdSlider", "minimumSizeSpinBox", "smoothingSpinBox"])
def test_after_an_edit_the_sliders_offer_to_start_again_and_change_nothing(
    ready: SimpleNamespace, name: str
) -> None:
    assert not ready.ui.startAgainButton.isVisibleTo(ready.form)
    ready.logic.isEdited = True
    getattr(ready.ui, name).value = 0.75
    ready.panel.segment.onTimer()
    assert not asked(ready, "rethreshold")
    assert ready.ui.startAgainButton.isVisibleTo(ready.form)
    assert "You edited this result, so it stays as it is" in ready.ui.statusLabel.text
    ready.ui.startAgainButton.click()
    assert len(asked(ready, "rethreshold")) == 1
    assert not ready.ui.startAgainButton.isVisibleTo(ready.form)
    ready.logic.isEdited = False
    move(ready, 0.25)
    assert len(asked(ready, "rethreshold")) == 2


def test_another_task_leaves_the_former_result_alone(ready: SimpleNamespace) -> None:
    ready.ui.taskComboBox.currentIndex = 1
    assert ready.ui.thresholdSlider.value == pytest.approx(0.4)
    ready.panel.segment.onTimer()
    assert not asked(ready, "rethreshold")
    move(ready, 0.3)  # that of the next run
    assert not asked(ready, "rethreshold")
    ready.ui.taskComboBox.currentIndex = 0
    move(ready, 0.6)
    assert asked(ready, "rethreshold") == [("rethreshold", 0.6)]


@pytest.mark.parametrize("replace", [False, True])
def test_running_into_an_edited_segmentation_asks(
    ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    entry = ready.panel.segment.choice.entries[0]
    entry.task["classes"] = [CLASS]
    monkeypatch.setitem(panel_cases.POLYP, "classes", [CLASS])
    paint(ready.node, ready.image, (0, 40, 3))
    questions: list[str] = []
    monkeypatch.setattr(
        slicer.util, "confirmYesNoDisplay", lambda text, *_: questions.append(text) or replace
    )
    before = len(asked(ready, "start"))
    ready.ui.whatComboBox.currentIndex = 2
    ready.ui.applyButton.click()
    assert "Polyp in polyp was edited by hand" in questions[0]
    assert len(asked(ready, "start")) == before + 1
    chosen = asked(ready, "start")[-1][1]["parameter"].outputSegmentation
    assert chosen is (ready.node if replace else None)


def test_the_result_selector_follows_the_result_so_that_pressing_twice_leaves_one(
    ready: SimpleNamespace,
) -> None:
    assert ready.ui.outputSelector.currentNode() is ready.node
    assert ready.logic.parameter.outputSegmentation is ready.node
    ready.ui.applyButton.click()
    assert asked(ready, "start")[-1][1]["parameter"].outputSegmentation is ready.node


def test_each_image_has_its_own_result(ready: SimpleNamespace) -> None:
    other = panel_cases.colour_volume("another frame")
    ready.ui.inputSelector.setCurrentNode(other)
    assert ready.ui.outputSelector.currentNode() is None
    assert not ready.ui.refineCollapsibleButton.isVisibleTo(ready.form)
    ready.ui.inputSelector.setCurrentNode(ready.image)
    assert ready.ui.outputSelector.currentNode() is ready.node


def test_a_run_that_ends_while_another_module_is_shown_is_the_result_when_one_comes_back(
    ready: SimpleNamespace,
) -> None:
    ready.ui.applyButton.click()
    ready.panel.follow(None)
    node = segmentation(ready.image, "made meanwhile")
    say(ready, ("finished", node))
    assert ready.logic.parameter.outputSegmentation is ready.node
    ready.panel.follow(ready.logic.parameter)
    assert ready.ui.outputSelector.currentNode() is node
    assert ready.ui.refineCollapsibleButton.isVisibleTo(ready.form)


@pytest.mark.parametrize("agreed", [False, True])
def test_undoing_a_run_asks_before_edits_go_with_it(
    ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, agreed: bool
) -> None:
    questions: list[str] = []
    monkeypatch.setattr(
        slicer.util, "confirmOkCancelDisplay", lambda text, *_: questions.append(text) or agreed
    )
    ready.logic.isEdited = True
    ready.ui.undoButton.click()
    assert "remove your edits" in questions[0]
    assert bool(asked(ready, "undo")) is agreed


def test_an_image_that_is_shown_during_a_run_waits_for_its_end(ready: SimpleNamespace) -> None:
    composite = slicer.vtkMRMLSliceCompositeNode()
    composite.SetLayoutName("Red")
    slicer.mrmlScene.AddNode(composite)
    ready.ui.applyButton.click()
    other = panel_cases.colour_volume("shown meanwhile")
    composite.SetBackgroundVolumeID(other.GetID())
    ready.app.processEvents()
    assert ready.logic.parameter.inputNode is ready.image
    node = segmentation(ready.image, "the result")
    say(ready, ("finished", node))
    assert ready.logic.parameter.inputNode is ready.image
    assert ready.ui.outputSelector.currentNode() is node


def test_a_segmentation_that_the_user_chose_stays_when_the_view_moves(
    ready: SimpleNamespace,
) -> None:
    drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn by hand")
    view = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceNode")
    for chosen in (drawn, None):
        ready.ui.outputSelector.setCurrentNode(chosen)
        view.SetSliceOffset(view.GetSliceOffset() + 0.1)
        view.Modified()
        assert ready.logic.parameter.outputSegmentation is chosen


def test_a_clip_whose_browser_is_deleted_leaves_a_panel_that_works(
    ready: SimpleNamespace,
) -> None:
    from test_first_use import clip

    browser = clip()
    proxy = browser.GetProxyNode(browser.GetMasterSequenceNode())
    ready.ui.inputSelector.setCurrentNode(proxy)
    assert ready.panel.segment.input.isSequence
    slicer.mrmlScene.RemoveNode(browser)
    ready.panel.segment.refresh()
    panel_cases.live(lambda: not ready.panel.segment.input.isSequence)
    ready.ui.applyButton.click()
    assert ready.ui.applyButton.text == "Cancel"
    say(ready, ("cancelled",))


def test_the_task_that_is_shown_is_that_of_a_new_scene_with_its_threshold(
    ready: SimpleNamespace,
) -> None:
    ready.ui.taskComboBox.currentIndex = 1
    ready.panel.forget()
    ready.logic.parameter.parameterNode.Reset(None)
    slicer.mrmlScene.Clear(True)
    library = panel_cases.importlib.import_module("SAM2UNet")
    again = library.SAM2UNetLogic().getParameterNode()
    ready.panel.follow(again)
    assert ready.ui.taskComboBox.currentText == "Nerve in ultrasound"
    assert (again.task, again.threshold) == ("nerve", 0.4)


def test_the_module_opens_on_a_segmentation_whose_image_has_no_pixels(
    ready: SimpleNamespace,
) -> None:
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "its file is missing")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "of yesterday")
    node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), empty.GetID())
    ready.logic.parameter.outputSegmentation = node
    ready.panel.follow(None)
    ready.panel.follow(ready.logic.parameter)
    assert ready.ui.outputSelector.currentNode() is node
    assert not ready.ui.show3DButton.enabled


@pytest.mark.parametrize("agreed", [False, True])
def test_a_segmentation_that_follows_no_frame_is_saved_for_the_shown_one_after_a_question(
    ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, agreed: bool
) -> None:
    from PySide6 import QtWidgets
    from test_first_use import clip

    browser = clip()
    proxy = browser.GetProxyNode(browser.GetMasterSequenceNode())
    drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn by hand")
    drawn.SetNodeReferenceID(drawn.GetReferenceImageGeometryReferenceRole(), proxy.GetID())
    browser.SetSelectedItemNumber(2)
    questions: list[str] = []
    monkeypatch.setattr(
        slicer.util, "confirmOkCancelDisplay", lambda text, *_: questions.append(text) or agreed
    )
    monkeypatch.setattr(
        QtWidgets.QFileDialog, "getExistingDirectory", staticmethod(lambda *_: str(tmp_path))
    )
    ready.ui.outputSelector.setCurrentNode(drawn)
    ready.ui.exportButton.click()
    assert "will refer to frame 3, which is shown now" in questions[0]
    assert bool(asked(ready, "export")) is agreed


def test_the_folder_tab_asks_whether_a_bundle_of_a_scene_is_trusted(
    ready: SimpleNamespace, repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node = ready.logic.parameter.parameterNode
    with slicer.util.NodeModify(node):
        node.SetParameter("bundle", str(repository / "monai_bundle"))
        node.SetParameter("task", "polyp")
    questions: list[str] = []
    monkeypatch.setattr(
        slicer.util, "confirmOkCancelDisplay", lambda text, *_: bool(questions.append(text))
    )
    ready.ui.batchInputPath.currentPath = ready.ui.batchOutputPath.currentPath = str(tmp_path)
    ready.ui.batchRunButton.click()
    assert "did not come with this module" in questions[0]
    assert ready.panel.batch.batch is None


def test_painting_while_a_threshold_is_computed_offers_to_start_again(
    ready: SimpleNamespace,
) -> None:
    move(ready, 0.6)
    ready.logic.isEdited = True
    say(ready, ("failed", "you painted while it was computed", "start again"))
    assert ready.ui.startAgainButton.isVisibleTo(ready.form)
    ready.ui.startAgainButton.click()
    assert len(asked(ready, "rethreshold")) == 2
