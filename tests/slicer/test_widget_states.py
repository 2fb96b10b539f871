"""The panel in each of its states, with runs that say what they are told."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import panel_cases
import qt_stand_ins
import slicer

qt_stand_ins.speak_pythonqt(__name__)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[SimpleNamespace]:
    with panel_cases.opened_panel(tmp_path) as opened:
        yield opened


@pytest.fixture
def ready(opened: SimpleNamespace) -> SimpleNamespace:
    """A panel with tasks, a view and an image."""
    panel_cases.slice_view()
    opened.image = panel_cases.colour_volume()
    say(opened, ("offer", panel_cases.offer()))
    return opened


def say(opened: SimpleNamespace, *events: tuple) -> None:
    """Let the logic say something and the panel's timer hear it."""
    opened.logic.events += events
    opened.panel.segment.onTimer()


def asked(opened: SimpleNamespace, what: str) -> list[tuple]:
    return [each for each in opened.logic.asked if each[0] == what]


def test_without_an_environment_a_banner_leads_to_the_setup_tab(tmp_path: Path) -> None:
    with panel_cases.opened_panel(tmp_path, python="") as opened:
        assert "not set up yet" in opened.ui.bannerLabel.text
        assert not opened.ui.applyButton.enabled
        panel_cases.live(lambda: opened.ui.setUpButton.enabled)
        assert opened.ui.setUpButton.isVisibleTo(opened.form)
        assert re.fullmatch(r"Set up \(about \d\.\d GB\)\.\.\.", opened.ui.setUpButton.text)
        opened.ui.bannerLabel.linkActivated.emit("setup")
        assert opened.ui.tabWidget.currentIndex == 2
        assert opened.ui.buildButton.enabled
        assert not opened.ui.removeButton.enabled
        assert "no environment of this module" in opened.ui.removeButton.toolTip


def test_one_button_sets_up_what_is_missing_after_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[str] = []
    with panel_cases.opened_panel(tmp_path, python="") as opened:
        monkeypatch.setattr(
            slicer.util, "confirmOkCancelDisplay", lambda text, *_: questions.append(text)
        )
        panel_cases.live(lambda: opened.ui.setUpButton.enabled)
        opened.ui.setUpButton.click()
        assert opened.ui.tabWidget.currentIndex == 2
        assert "of disk space" in questions[0]
        assert opened.panel.environment.builder is None  # the answer was no
        assert opened.ui.setUpButton.text == opened.ui.buildButton.text


def test_the_driver_is_asked_in_another_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nvidia-smi can take ten seconds; the panel is there at once."""
    asked, answer = threading.Event(), threading.Event()

    def driver() -> tuple[int, int]:
        asked.set()
        assert answer.wait(300)
        return 12, 8

    sys.path.insert(0, str(panel_cases.MODULE.parent))
    with panel_cases.opened_panel(tmp_path / "first", python=""):
        library = panel_cases.importlib.import_module("SAM2UNetLib.EnvironmentPanel")
    monkeypatch.setattr(library, "driverCuda", driver)
    with panel_cases.opened_panel(tmp_path / "second", python="") as opened:
        assert asked.wait(300)
        assert not opened.ui.setUpButton.enabled
        assert opened.ui.setUpButton.text == "Looking at this computer..."
        answer.set()
        panel_cases.live(lambda: opened.ui.setUpButton.enabled)
        torch = opened.ui.torchComboBox
        expected = "" if sys.platform == "darwin" else "cu128"
        assert torch.itemData(torch.currentIndex) == expected


def test_a_device_is_offered_where_it_can_be(opened: SimpleNamespace) -> None:
    devices = panel_cases.importlib.import_module("SAM2UNetLib.SegmentPanel").devices
    assert [name for name, _ in devices("darwin")] == ["auto", "cpu", "mps"]
    for platform in ("linux", "win32"):
        assert [name for name, _ in devices(platform)] == ["auto", "cpu", "cuda"]


def test_with_an_environment_its_tasks_are_asked_for(opened: SimpleNamespace) -> None:
    (_, command), *_ = asked(opened, "tasks")
    assert command[0] == sys.executable
    assert opened.ui.bannerLabel.text == ""


def test_without_an_image_the_button_says_what_is_missing(opened: SimpleNamespace) -> None:
    say(opened, ("offer", panel_cases.offer()))
    assert not opened.ui.applyButton.enabled
    assert "Load an image first" in opened.ui.statusLabel.text


def test_with_an_image_and_a_task_the_button_starts_a_run(ready: SimpleNamespace) -> None:
    assert ready.ui.statusLabel.text == "Ready: Red, slice 1 of 1."
    ready.ui.applyButton.click()
    ((_, fields),) = asked(ready, "start")
    assert fields["entry"].name == "polyp"
    assert fields["parameter"].inputNode is ready.image
    assert fields["parameter"].what == "slice"
    assert fields["between"] is None
    assert ready.ui.applyButton.text == "Cancel"
    assert ready.ui.applyButton.enabled
    assert not ready.ui.taskComboBox.enabled


@pytest.mark.parametrize("threshold", [0.0004, 0.375, 0.9996])
def test_a_task_s_own_threshold_is_taken_as_it_is(ready: SimpleNamespace, threshold: float) -> None:
    entry = panel_cases.offer().tasks[0]
    task = {**entry.task, "threshold": threshold}
    nerve = panel_cases.offer().tasks[1]
    say(ready, ("offer", panel_cases.offer(replace(entry, task=task), nerve)))
    ready.ui.taskComboBox.currentIndex = 1
    ready.ui.taskComboBox.currentIndex = 0
    assert ready.logic.parameter.threshold == threshold
    assert ready.panel.segment.batchOptions()["threshold"] == threshold
    ready.ui.applyButton.click()
    ((_, fields),) = asked(ready, "start")
    assert fields["parameter"].threshold == threshold


def test_progress_shows_the_time_left(ready: SimpleNamespace) -> None:
    ready.ui.applyButton.click()
    say(ready, ("progress", 30, 120, 95.0))
    assert ready.ui.progressBar.maximum == 120
    assert ready.ui.progressBar.value == 30
    assert ready.ui.statusLabel.text == "30 of 120, about 2 min left"


def test_a_finished_run_can_be_undone_refined_and_saved(ready: SimpleNamespace) -> None:
    ready.ui.applyButton.click()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Colon polyp")
    ready.logic.canUndo = True
    say(ready, ("finished", node))
    assert ready.ui.statusLabel.text.startswith("Done in ")
    assert ready.ui.applyButton.enabled
    assert ready.ui.exportButton.enabled
    ready.ui.undoButton.click()
    assert asked(ready, "undo")
    assert not ready.ui.refineCollapsibleButton.isVisibleTo(ready.form)


def test_what_was_guessed_in_the_pictures_is_told_in_one_line_below_the_result(
    ready: SimpleNamespace,
) -> None:
    ready.ui.applyButton.click()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Polyp <1>")
    texts = ["3 < 4 pixels are no number (frames 2, 4)", "a slice is missing", "x" * 300]
    say(ready, ("warned", texts), ("finished", node))
    first, second = ready.ui.statusLabel.text.split("<br>")
    assert first.startswith("Done in ")
    assert "Polyp &lt;1&gt;" in first
    assert second == (
        "<b>Note:</b> 3 &lt; 4 pixels are no number (frames 2, 4) <i>+2 more in the log</i>"
    )
    assert ready.ui.statusLabel.toolTip == "\n".join(texts)
    log = ready.ui.logTextEdit.plainText
    assert log.splitlines()[-3:] == [f"Note: {text}" for text in texts]
    say(ready, ("refined", node))
    assert ready.ui.statusLabel.text.endswith(second)  # it stays true of the same run
    ready.ui.applyButton.click()
    say(ready, ("finished", node))
    assert "Note" not in ready.ui.statusLabel.text
    assert ready.ui.statusLabel.toolTip == ""


def test_a_long_note_is_cut_where_a_line_ends(ready: SimpleNamespace) -> None:
    ready.ui.applyButton.click()
    say(ready, ("warned", ["word " * 60]), ("exported", "/folder/seg.dcm"))
    first, second = ready.ui.statusLabel.text.split("<br>")
    assert first == "Written: /folder/seg.dcm"
    shown = second.removeprefix("<b>Note:</b> ")
    assert len(shown) <= 140
    assert shown.endswith("word...")


def test_moving_the_threshold_after_a_run_asks_once_for_the_newest_value(
    ready: SimpleNamespace,
) -> None:
    ready.ui.thresholdSlider.value = 0.6
    assert not asked(ready, "rethreshold")  # nothing was run yet
    ready.ui.applyButton.click()
    say(ready, ("finished", slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")))
    ready.logic.busy = True
    for value in (0.5, 0.4, 0.3):
        ready.ui.thresholdSlider.value = value
        ready.panel.segment.onTimer()
    assert not asked(ready, "rethreshold")  # the last one is still being worked on
    ready.logic.busy = False
    ready.panel.segment.onTimer()
    assert asked(ready, "rethreshold") == [("rethreshold", 0.3)]


def test_cancelling_waits_for_the_runs_last_word(ready: SimpleNamespace) -> None:
    ready.ui.applyButton.click()
    ready.ui.applyButton.click()
    assert asked(ready, "cancel")
    assert not ready.ui.applyButton.enabled
    assert ready.ui.applyButton.text == "Cancel"
    say(ready, ("cancelled",))
    assert ready.ui.applyButton.enabled
    assert "Cancelled" in ready.ui.statusLabel.text


def test_a_failure_says_what_and_what_to_do_and_leaves_no_stale_state(
    ready: SimpleNamespace,
) -> None:
    ready.ui.applyButton.click()
    say(ready, ("failed", "out of memory on the GPU", "choose CPU under Advanced"))
    assert ready.ui.statusLabel.text == (
        "<b>Out of memory on the GPU.</b> Choose CPU under Advanced."
    )
    assert "on the GPU" in ready.ui.logTextEdit.plainText
    assert ready.ui.applyButton.enabled
    assert ready.ui.applyButton.text == "Segment with SAM2-UNet"
    assert not ready.ui.exportButton.enabled
    assert "Segment first" in ready.ui.exportButton.toolTip


def test_closing_the_scene_ends_a_run_and_another_can_begin(ready: SimpleNamespace) -> None:
    ready.ui.applyButton.click()
    ready.panel.forget()
    assert asked(ready, "forget")
    assert ready.ui.statusLabel.text == "The run was ended."
    ready.panel.follow(ready.logic.parameter)
    assert ready.ui.applyButton.enabled
    assert ready.ui.applyButton.text == "Segment with SAM2-UNet"
    assert not ready.ui.exportButton.enabled


def test_an_environment_that_goes_ends_a_run(ready: SimpleNamespace) -> None:
    python = ready.ui.pythonPath.currentPath
    ready.ui.applyButton.click()
    ready.ui.pythonPath.currentPath = ""
    assert asked(ready, "close")
    assert not ready.ui.applyButton.enabled
    assert ready.ui.applyButton.text == "Segment with SAM2-UNet"
    ready.ui.pythonPath.currentPath = python
    assert ready.ui.applyButton.enabled


def test_nothing_runs_in_an_environment_whose_folder_is_cleared(ready: SimpleNamespace) -> None:
    ready.ui.applyButton.click()
    ready.panel.batch.batch = SimpleNamespace(cancel=lambda: [("cancelled",)])
    ready.panel.environment.onRelease()
    assert asked(ready, "close")
    assert ready.panel.batch.batch is None
    assert ready.ui.applyButton.text == "Segment with SAM2-UNet"


def test_a_slider_that_was_moved_just_before_the_module_is_left_does_no_harm(
    ready: SimpleNamespace,
) -> None:
    ready.ui.applyButton.click()
    say(ready, ("finished", slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")))
    ready.ui.thresholdSlider.value = 0.3
    ready.panel.follow(None)
    ready.panel.segment.onTimer()
    assert not asked(ready, "rethreshold")


def test_a_run_that_cannot_begin_is_a_failure_too(
    ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("python: cannot be started")

    monkeypatch.setattr(ready.logic, "start", refuse)
    ready.ui.applyButton.click()
    assert "cannot be started" in ready.ui.statusLabel.text
    assert ready.ui.applyButton.enabled


def test_a_task_that_is_not_made_for_the_image_is_grey_with_the_worker_s_words_and_can_be_forced(
    ready: SimpleNamespace,
) -> None:
    node = panel_cases.colour_volume("Fundus", modality="OP")
    ready.ui.inputSelector.setCurrentNode(node)
    polyp = ready.ui.taskComboBox.model().item(0)
    assert polyp.isEnabled()  # the worker has not answered yet: nothing is guessed
    assert ready.ui.applyButton.enabled
    ready.logic.rejections["polyp"] = "whatever the worker's words are"
    say(ready, ("rejections",))
    assert not polyp.isEnabled()
    assert polyp.toolTip() == "Whatever the worker's words are."
    assert ready.ui.taskNoteLabel.text.startswith("Whatever the worker's words are. ")
    assert "not made for this image" in ready.ui.statusLabel.text
    assert not ready.ui.applyButton.enabled
    ready.ui.forceCheckBox.checked = True
    assert polyp.isEnabled()
    assert ready.ui.applyButton.enabled
    assert "run all the same" in ready.ui.taskNoteLabel.text
    ready.ui.applyButton.click()
    assert asked(ready, "start")[0][1]["parameter"].force is True


def test_an_image_that_did_not_come_from_dicom_suits_every_task(ready: SimpleNamespace) -> None:
    ready.logic.rejections["polyp"] = "made for something else"
    ready.panel.segment.refresh()
    assert ready.ui.taskComboBox.model().item(0).isEnabled()
    assert ready.ui.applyButton.enabled


def test_what_slicer_does_not_know_of_a_dicom_image_is_said_beside_the_task(
    ready: SimpleNamespace,
) -> None:
    entry = ready.panel.segment.choice.entries[0]
    accepts = {"modalities": ["ES"], "sop_classes": ["1.2.840.10008.5.1.4.1.1.77.1.1.1"]}
    task = replace(entry, task={**entry.task, "accepts": accepts})
    say(ready, ("offer", panel_cases.offer(task)))
    ready.ui.inputSelector.setCurrentNode(panel_cases.colour_volume("Frame", modality="ES"))
    assert "Slicer does not know the SOP class of this image" in ready.ui.taskNoteLabel.text
    assert ready.ui.applyButton.enabled


def test_another_environment_is_asked_when_the_run_in_the_first_has_ended(
    ready: SimpleNamespace,
) -> None:
    ready.ui.applyButton.click()
    before = len(asked(ready, "tasks"))
    ready.panel.onEnvironment()
    assert len(asked(ready, "tasks")) == before
    say(ready, ("cancelled",))
    assert len(asked(ready, "tasks")) == before + 1


def test_an_environment_that_does_not_answer_is_not_asked_again_and_again(
    opened: SimpleNamespace,
) -> None:
    before = len(asked(opened, "tasks"))
    say(opened, ("failed", "the environment does not answer", "press Repair"))
    assert len(asked(opened, "tasks")) == before
    opened.panel.enter()  # the user comes back to it
    assert len(asked(opened, "tasks")) == before + 1


def test_a_task_without_weights_says_where_to_choose_some(ready: SimpleNamespace) -> None:
    ready.ui.taskComboBox.currentIndex = 2
    assert "(no weights)" in ready.ui.taskComboBox.currentText
    assert "choose a weights file under Advanced" in ready.ui.statusLabel.text
    ready.ui.weightsPath.currentPath = "/data/mine.safetensors"
    assert ready.ui.applyButton.enabled


def test_another_task_offers_its_own_threshold(ready: SimpleNamespace) -> None:
    ready.ui.taskComboBox.currentIndex = 1
    assert ready.ui.thresholdSlider.value == pytest.approx(0.4)


def test_a_label_map_is_no_image(ready: SimpleNamespace) -> None:
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing in it")
    ready.ui.inputSelector.setCurrentNode(empty)
    assert "contains no image" in ready.ui.statusLabel.text
    assert not ready.ui.applyButton.enabled


def test_a_range_shows_its_rows_and_must_not_end_before_it_begins(ready: SimpleNamespace) -> None:
    ready.form.show()
    ready.ui.whatComboBox.currentIndex = 1
    assert ready.ui.firstSpinBox.isVisibleTo(ready.form)
    ready.ui.firstSpinBox.value = 5
    ready.ui.lastSpinBox.value = 2
    assert "ends before it begins" in ready.ui.statusLabel.text
    ready.ui.lastSpinBox.value = 7
    ready.ui.applyButton.click()
    assert asked(ready, "start")[0][1]["between"] == (4, 6)


def test_what_is_chosen_is_kept_in_the_scene(ready: SimpleNamespace) -> None:
    ready.ui.thresholdSlider.value = 0.35
    ready.ui.minimumSizeSpinBox.value = 40
    ready.ui.smoothingSpinBox.value = 1.5
    ready.ui.keepLargestCheckBox.checked = True
    ready.ui.whatComboBox.currentIndex = 2
    node = ready.logic.parameter.parameterNode
    assert float(node.GetParameter("threshold")) == pytest.approx(0.35)
    assert float(node.GetParameter("minimumSize")) == 40
    assert node.GetParameter("keepLargest") == "True"
    assert node.GetParameter("what") == "volume"
    roles = [node.GetNthNodeReferenceRole(n) for n in range(node.GetNumberOfNodeReferenceRoles())]
    of_input = [role for role in roles if role.partition(".")[0] == "inputNode"]
    kept = [node.GetNodeReference(role) for role in of_input]  # a union numbers its members
    assert ready.image in kept
    assert set(kept) <= {ready.image, None}
    node.SetParameter("minimumSize", "12")
    assert ready.ui.minimumSizeSpinBox.value == 12


def test_the_users_choices_outlive_slicer(tmp_path: Path) -> None:
    with panel_cases.opened_panel(tmp_path) as opened:
        opened.ui.deviceComboBox.currentIndex = 1
        opened.ui.wheelsPath.currentPath = "/wheels"
    with panel_cases.opened_panel(tmp_path) as opened:
        assert opened.ui.deviceComboBox.itemData(opened.ui.deviceComboBox.currentIndex) == "cpu"
        assert opened.ui.wheelsPath.currentPath == "/wheels"
        assert opened.ui.existingRadioButton.checked


def test_the_log_can_be_copied(ready: SimpleNamespace) -> None:
    ready.panel.segment.fail("something", "do something")
    ready.ui.copyLogButton.click()
    text = slicer.app.clipboard().text()
    assert "Something. Do something." in text
    assert "the worker's log" in text


def test_another_bundle_is_asked_about_before_it_is_taken(
    ready: SimpleNamespace, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = []
    answers = iter([False, True])

    def ask(text: str, *_: Any) -> bool:
        questions.append(text)
        return next(answers)

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", ask)
    choice = ready.panel.segment.choice
    entry = panel_cases.importlib.import_module("SAM2UNetLib.Tasks").readBundle(
        repository / "monai_bundle"
    )
    choice.add(entry)
    assert len(choice.entries) == 3
    choice.add(entry)
    assert "did not come with this module" in questions[0]
    assert choice.current.bundle == repository / "monai_bundle"
    assert ready.panel.segment.batchOptions()["bundle"] == str(repository / "monai_bundle")


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    catalog = panel_cases.importlib.import_module("SAM2UNetLib.Tasks")
    with pytest.raises(catalog.BundleProblem, match="configs and models"):
        catalog.readBundle(tmp_path)
