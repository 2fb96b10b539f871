"""From the button to the segmentation, with the real worker and a small network."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import vtk
from mask_cases import masksOf, sequenceMasks
from SAM2UNetLib import Session as session_module
from SAM2UNetLib.Request import Request
from SAM2UNetLib.Session import Session
from SAM2UNetLib.WorkerProcess import WorkerProcess


def request(node, bundle, what="volume", **options):
    return Request(node, what, bundle=str(bundle), device="cpu", runtime="exact", **options)


@pytest.fixture
def pictures():
    return np.random.default_rng(6).integers(0, 256, (3, 40, 48), np.uint8)


def by_the_library(bundle, frames, threshold):
    """The masks that the package gives for `(N, H, W, 3)` frames."""
    from sam2unet_core.segmenter import Segmenter

    segmenter = Segmenter.open(bundle, device="cpu", runtime="exact")
    return segmenter.probabilities(frames)


def middle(bundle, pictures):
    """A threshold that about half of the pixels reach, and the probabilities."""
    frames = np.repeat(pictures[..., None], 3, axis=3)
    found = by_the_library(bundle, frames, None)
    return float(np.round(np.median(found), 4)), found


def test_a_volume_s_segmentation_is_what_the_package_gives(session, volume, bundle, pictures, run):
    node = volume(pictures)
    threshold, probabilities = middle(bundle, pictures)
    session.start(request(node, bundle, threshold=threshold))
    told = run(session)
    assert told[-1][0] == "finished", told
    got = masksOf(told[-1][1], node, session.task)
    expected = probabilities >= threshold
    assert 0.2 < expected.mean() < 0.8
    assert (got != expected).mean() < 1e-3  # probabilities travel in half precision, if at all
    assert any(each[0] == "progress" for each in told)


def test_the_threshold_moves_without_a_new_node_and_undo_empties_the_scene(
    session, volume, scene, bundle, pictures, run
):
    node = volume(pictures)
    threshold, probabilities = middle(bundle, pictures)
    session.start(request(node, bundle, threshold=threshold))
    run(session)
    higher = float(np.quantile(probabilities, 0.9))
    for value in (0.01, higher):  # the second waits for the first, or takes its place
        assert session.rethreshold(threshold=value)
    told = run(session)
    while session.isBusy:
        told += run(session)
    got = masksOf(told[-1][1], node, session.task)
    assert (got != (probabilities >= higher)).mean() < 5e-3
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
    session.undo()
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert not session.canRethreshold


def test_a_colour_clip_gets_a_segmentation_a_frame(session, sequence, bundle, run):
    frames = np.random.default_rng(7).integers(0, 256, (4, 1, 40, 48, 3), np.uint8)
    browser = sequence(frames)
    found = by_the_library(bundle, frames[:, 0], None)
    threshold = float(np.round(np.median(found), 4))
    session.start(request(browser, bundle, what="sequence", threshold=threshold))
    told = run(session)
    assert told[-1][0] == "finished", told
    got, items = sequenceMasks(told[-1][1], browser, session.task)
    assert items == [0, 1, 2, 3]
    assert (got != (found >= threshold)).mean() < 1e-3


def with_modality(node, modality):
    """Mark a node as Slicer's DICOM reader does."""
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
    hierarchy.SetItemAttribute(item, "DICOM.Modality", modality)
    return node


def test_the_worker_refuses_a_dicom_image_of_another_modality_unless_it_is_forced(
    session, volume, scene, bundle, pictures, run
):
    node = with_modality(volume(pictures), "CT")
    session.start(request(node, bundle))
    told = run(session)
    assert told[-1][0] == "failed"
    assert told[-1][1] == ("this is a CT image (CT); the task 'polyp' is made for endoscopy (ES)")
    assert "force" in told[-1][2]
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    session.start(request(node, bundle, force=True))
    assert run(session)[-1][0] == "finished"


def test_an_image_that_could_not_be_checked_is_segmented_with_a_note(
    session, volume, bundle, pictures, run
):
    node = volume(pictures)
    node.SetAttribute("DICOM.instanceUIDs", "9.9")  # of a scene from another computer
    session.start(request(node, bundle))
    told = run(session)
    assert told[-1][0] == "finished", told
    kind, (text,) = told[-2]
    assert kind == "warned"
    assert text.startswith("Slicer does not know the modality of this image")


def test_questions_are_answered_while_a_run_goes_on(session, volume, bundle, two_classes, run):
    session.start(request(volume(np.zeros((1000, 64, 64), np.uint8)), bundle))
    run(session, ("progress",))
    source = {"modality": "CT", "sop_class_uid": None, "photometric": "MONOCHROME2"}
    session.askRejection("ct", source, two_classes)
    session.askRejection("us", {**source, "modality": "US"}, two_classes)
    session.askRejection("broken", source, {"name": "no task"})
    told = []
    while session.isAsking:
        told += session.poll()
        time.sleep(0.005)
    answers = {each[1]: each[2] for each in told if each[0] == "rejection"}
    assert answers == {
        "ct": "this is a CT image (CT); the task 'arm' is made for ultrasound (US)",
        "us": "",
    }
    assert session.isBusy
    session.cancel()
    assert run(session)[-1][0] == "cancelled"


def test_an_environment_without_the_worker_says_so(tmp_path):
    session = Session(WorkerProcess([sys.executable, "-c", "raise SystemExit('no sam2unet')"]))
    session.askForTasks()
    told = []
    while session.isAsking:
        told += session.poll()
        time.sleep(0.005)
    ((kind, message, remedy),) = told
    assert (kind, message) == ("failed", "The environment does not answer: no sam2unet")
    assert "Repair" in remedy
    session.close()


def test_cancelling_leaves_the_scene_as_it_was(session, volume, scene, bundle, run):
    node = volume(np.zeros((1000, 64, 64), np.uint8))
    session.start(request(node, bundle))
    told = []
    while not any(each[0] == "progress" for each in told):
        told += session.poll()
        time.sleep(0.005)
    session.cancel()
    assert run(session)[-1][0] == "cancelled"
    while session.isBusy:
        session.poll()
        time.sleep(0.005)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    session.start(request(volume(np.zeros((1, 64, 64), np.uint8)), bundle))
    assert run(session)[-1][0] == "finished"


def test_a_killed_worker_is_told_and_the_next_run_starts_another(
    session, volume, scene, bundle, pictures, run
):
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("needs Linux or macOS: SIGKILL")
    node = volume(np.zeros((1000, 64, 64), np.uint8))
    session.start(request(node, bundle))
    told = []
    while not any(each[0] == "progress" for each in told):
        told += session.poll()
        time.sleep(0.005)
    os.kill(session.worker._process.pid, signal.SIGKILL)
    told = run(session)
    assert told[-1][0] == "failed"
    assert "memory" in told[-1][2]
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    session.start(request(volume(pictures), bundle))
    assert run(session)[-1][0] == "finished"


def test_an_input_that_cannot_be_segmented_is_told_not_raised(session, volume, bundle, pictures):
    session.start(request(volume(pictures), bundle, what="slice"))
    ((kind, message, remedy),) = session.poll()
    assert (kind, message) == ("failed", "no slice view is chosen")
    assert remedy
    assert not session.isBusy


def test_a_worker_that_is_not_there_is_told_with_what_to_do(volume, bundle, pictures, tmp_path):
    session = Session(WorkerProcess([str(tmp_path / "nothing")]))
    session.start(request(volume(pictures), bundle))
    ((kind, message, remedy),) = session.poll()
    assert kind == "failed"
    assert "cannot be started" in message
    assert "repair the environment" in remedy


def test_missing_weights_are_told_with_what_to_do(session, volume, pictures, run):
    session.start(Request(volume(pictures), "volume", task="skin_lesion", device="cpu"))
    told = run(session)
    assert told[-1][0] == "failed"
    assert told[-1][2]
    session.poll()
    assert not session.isBusy


def test_one_slice_never_holds_the_main_thread_for_long(
    session, volume, slice_view, bundle, run, sorting_time
):
    """No call takes more CPU time than sorting some numbers does."""
    array = np.random.default_rng(8).integers(-1000, 1000, (60, 512, 512)).astype(np.int16)
    node = volume(array)
    view = slice_view([-1, 0, 0], [0, 1, 0], through=[-3, -3, 30])
    ask = request(node, bundle, what="slice", sliceNode=view, threshold=0.3)
    session.start(ask)
    run(session)  # the worker is warm now
    longest, told, sorting = 0.0, [], []
    for _ in range(3):
        sorting.append(sorting_time())
        before = time.thread_time()
        session.start(ask)
        longest, told = max(longest, time.thread_time() - before), []
        while not (told and told[-1][0] in ("finished", "failed")):
            before = time.thread_time()
            told += session.poll()
            longest = max(longest, time.thread_time() - before)
            time.sleep(0.002)
        assert told[-1][0] == "finished", told
    assert longest < max(sorting)


def test_partial_results_are_seen_before_the_end(session, volume, bundle, monkeypatch, run):
    monkeypatch.setattr(session_module, "PARTIAL_S", 0.0)
    session.start(request(volume(np.zeros((6, 64, 64), np.uint8)), bundle))
    told = run(session)
    assert told[-1][0] == "finished"
    assert {each[1] for each in told if each[0] == "partial"} == set(range(6))


def test_a_network_that_cannot_be_loaded_does_not_fall_back_on_the_last_one(
    session, volume, scene, bundle, pictures, run
):
    node = volume(pictures)
    session.start(request(node, bundle))
    assert run(session)[-1][0] == "finished"
    session.undo()
    session.start(replace(request(node, bundle), bundle=str(bundle / "nothing")))
    assert run(session)[-1][0] == "failed"
    while session.isBusy:
        assert session.poll() == []
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert session.task is None


def test_a_segmentation_that_was_removed_meanwhile_is_told(session, volume, scene, bundle, run):
    session.start(request(volume(np.zeros((40, 64, 64), np.uint8)), bundle))
    run(session, ("progress",))
    scene.RemoveNode(scene.GetFirstNodeByClass("vtkMRMLSegmentationNode"))
    told = run(session)
    assert told[-1][0] == "failed"
    assert "was removed" in told[-1][1]
    assert not session.isBusy


def test_no_pixels_are_left_in_the_exchange_folder(session, volume, bundle, pictures, run):
    session.start(request(volume(pictures), bundle))
    run(session)
    before = {path.name for path in session.worker.exchange.iterdir()}
    session.start(request(volume(pictures), bundle))
    run(session)
    after = {path.name for path in session.worker.exchange.iterdir()}
    assert len(after) <= len(before) + 1  # the kept probabilities of two results at most


@pytest.mark.parametrize("what", ["slice", "range", "volume"])
def test_a_run_tells_what_was_guessed_in_its_pictures(
    session, volume, slice_view, bundle, run, what
):
    values = np.random.default_rng(8).random((4, 40, 48)).astype(np.float32)
    values[2, 4, 5] = np.nan
    node = volume(values)
    view = slice_view((1, 0, 0), (0, 1, 0), _third_slice(node)) if what == "slice" else None
    between = (1, 3) if what == "range" else None
    session.start(request(node, bundle, what=what, sliceNode=view, between=between))
    told = run(session)
    assert told[-1][0] == "finished", told
    where = {"slice": "", "range": " (frame 2)", "volume": " (frame 3)"}[what]
    text = f"pixels are NaN or infinite: shown as the lowest value{where}"
    assert told[-2] == ("warned", [text])
    session.start(request(volume(np.zeros((2, 40, 48), np.uint8)), bundle))
    assert not [each for each in run(session) if each[0] == "warned"]


def test_a_sequence_tells_what_was_guessed_in_its_frames(session, sequence, bundle, run):
    frames = np.random.default_rng(7).random((3, 1, 40, 48)).astype(np.float32)
    frames[1, 0, 3, 4] = np.inf
    session.start(request(sequence(frames), bundle, what="sequence"))
    told = run(session)
    assert told[-1][0] == "finished", told
    assert told[-2][0] == "warned"
    assert told[-2][1][0].endswith("shown as the lowest value (frame 2)")


def test_what_was_guessed_when_a_video_was_loaded_is_told_with_each_run_on_it(
    session, sequence, bundle, run
):
    browser = sequence(np.zeros((2, 1, 40, 48, 3), np.uint8))
    held = browser.GetMasterSequenceNode()
    held.SetAttribute("SAM2UNet.warnings", "frames 3 and 4 are concealed\nits clock restarts")
    shown = browser.GetProxyNode(held)
    for node, what in ((browser, "sequence"), (shown, "volume")):
        session.start(request(node, bundle, what=what))
        told = run(session)
        assert told[-1][0] == "finished", told
        assert told[-2] == ("warned", ["frames 3 and 4 are concealed", "its clock restarts"])


def _third_slice(node):
    """The middle of a volume's third slice, in RAS."""
    i, j, _ = node.GetImageData().GetDimensions()
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix.MultiplyPoint((i // 2, j // 2, 2, 1))[:3]
