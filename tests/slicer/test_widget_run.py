"""The button is pressed, the real worker runs, and the segmentation is looked at."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import panel_cases
import qt_stand_ins
import slicer
import slicer_stand_ins
import torch
from PySide6 import QtCore, QtWidgets
from SAM2UNetLib.WorkerProcess import WorkerProcess

from sam2unet_core.batch.formats import FORMATS
from sam2unet_core.media.image import read_image
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import save_full
from sam2unet_core.phantom import write_dataset
from sam2unet_core.phantom.dicom import write_studies
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.task import load_preset
from sam2unet_core.types import SourceProperties, rejection_reason

qt_stand_ins.speak_pythonqt(__name__)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "nano.safetensors"
    save_full(SAM2UNet("nano"), path, task=load_preset("polyp"))
    return path


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """A drawn colonoscopy frame, `(H, W, 3)` uint8."""
    folder = tmp_path_factory.mktemp("frames") / "phantom"
    write_dataset(folder, frames=1, seed=1, size=(64, 80))
    return read_image(next((folder / "images").iterdir()))


class KeptWorker(WorkerProcess):
    """A worker that stays warm from one test to the next."""

    def stop(self) -> None:
        pass

    def end(self) -> None:
        super().stop()


@pytest.fixture(scope="module")
def kept_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptWorker]:
    command = [sys.executable, "-m", "sam2unet_core", "worker"]
    worker = KeptWorker(command, allowRoots=[tmp_path_factory.getbasetemp()])
    yield worker
    worker.end()


@pytest.fixture
def warm_widget(
    request: pytest.FixtureRequest, kept_worker: KeptWorker, monkeypatch: pytest.MonkeyPatch
) -> SimpleNamespace:
    """The module with a worker that other tests have used; it starts by itself when needed."""
    monkeypatch.setattr("SAM2UNetLib.Runs.WorkerProcess", lambda *_, **__: kept_worker)
    return request.getfixturevalue("widget")


@pytest.fixture
def widget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The module as Slicer opens it, with this Python as its environment."""
    monkeypatch.syspath_prepend(str(panel_cases.MODULE.parent))
    with (
        slicer_stand_ins.running_slicer(panel_cases.MODULE, tmp_path / "Slicer.ini") as running,
        slicer_stand_ins.real_scene(),
        panel_cases.no_error_in_a_slot(),
    ):
        settings = running.qt.QSettings()
        settings.setValue("SAM2UNet/kind", "existing")
        settings.setValue("SAM2UNet/python", sys.executable)
        settings.setValue("SAM2UNet/device", "cpu")
        settings.sync()
        parent = qt_stand_ins.qMRMLWidget()
        QtWidgets.QVBoxLayout(parent)
        parent.isEntered = True
        widget = importlib.import_module("SAM2UNet").SAM2UNetWidget(parent)
        panel_cases.slice_view()
        widget.setup()
        widget.enter()
        panel_cases.live(lambda: bool(widget.panel.segment.choice.entries))
        try:
            yield widget
        finally:
            widget.cleanup()


WHAT = ("slice", "range", "volume", "sequence")


def colour_volume(pixels: np.ndarray, name: str = "Frame") -> object:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, pixels if pixels.ndim == 4 else pixels[None])
    return node


def choose(
    widget: SimpleNamespace, node: object, *, what: str, weights: Path | None = None
) -> None:
    """Choose an image and a part of it; without weights, the starter network's are taken."""
    widget.ui.inputSelector.setCurrentNode(node)
    widget.ui.whatComboBox.currentIndex = WHAT.index(what)
    widget.ui.weightsPath.currentPath = str(weights or "")


def run(widget: SimpleNamespace) -> str:
    """Press the button and return what the status line says at the end."""
    assert widget.ui.applyButton.enabled, widget.ui.statusLabel.text
    widget.ui.applyButton.click()
    assert widget.panel.segment.running
    panel_cases.live(lambda: not widget.panel.segment.running)
    return widget.ui.statusLabel.text


def expected(weights: Path | None, pixels: np.ndarray) -> np.ndarray:
    """Return the segmenter's own probabilities of the frames, `(N, H, W)`."""
    segmenter = Segmenter.open(weights=weights, device="cpu")
    return segmenter.probabilities(pixels)[:, 0]


def voxels(widget: SimpleNamespace, volume: object) -> np.ndarray:
    node = widget.panel.segment.result
    segment = node.GetSegmentation().GetNthSegmentID(0)
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, volume)


def test_pressing_the_button_segments_the_frame_and_the_slider_changes_it(
    warm_widget: SimpleNamespace, frame: np.ndarray
) -> None:
    widget = warm_widget
    probability = expected(None, frame[None])[0]
    low, high = (float(np.quantile(probability, q)) for q in (0.6, 0.95))
    volume = colour_volume(frame)
    choose(widget, volume, what="volume")
    widget.ui.thresholdSlider.value = max(0.01, round(low, 2))
    assert run(widget).startswith("Done in ")
    found = voxels(widget, volume)[0]
    assert 0.01 < found.mean() < 0.99
    assert (found == (probability >= widget.ui.thresholdSlider.value)).mean() > 0.99

    node = widget.panel.segment.result
    segment = node.GetSegmentation().GetNthSegment(0)
    assert segment.GetName() == "Polyp"
    assert tag(segment, "DICOM.SegmentAlgorithmType") == "AUTOMATIC"

    widget.ui.thresholdSlider.value = max(round(high, 2), widget.ui.thresholdSlider.value + 0.01)
    panel_cases.live(lambda: widget.ui.statusLabel.text.startswith("Threshold "))
    panel_cases.live(lambda: not widget.panel.segment.runs.busy)
    changed = voxels(widget, volume)[0]
    assert changed.sum() < found.sum()
    assert (changed == (probability >= widget.ui.thresholdSlider.value)).mean() > 0.99
    assert widget.panel.segment.result is node

    widget.ui.undoButton.click()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def tag(segment: object, name: str) -> str:
    import vtk

    value = vtk.mutable("")
    segment.GetTag(name, value)
    return str(value)


def test_the_panel_shows_the_worker_s_reason_and_a_mismatching_dicom_image_can_be_forced(
    warm_widget: SimpleNamespace, frame: np.ndarray
) -> None:
    widget = warm_widget
    assert widget.panel.batch.ui.batchFormatList.count == len(FORMATS) + 1
    other = colour_volume(frame, "Not from DICOM")
    volume = panel_cases.colour_volume("From a CT", modality="CT")
    slicer.util.updateVolumeFromArray(volume, frame[None])
    reason = rejection_reason(load_preset("polyp"), SourceProperties("CT", None, "RGB")).message
    said = reason[:1].upper() + reason[1:] + "."
    choose(widget, volume, what="volume")
    panel_cases.live(lambda: said in widget.ui.taskNoteLabel.text)
    assert not widget.ui.applyButton.enabled
    panel_cases.live(lambda: not widget.panel.segment.runs.busy)  # other tasks are asked about too
    widget.ui.inputSelector.setCurrentNode(other)
    assert said not in widget.ui.taskNoteLabel.text
    assert widget.ui.applyButton.enabled

    parameter, command = widget.logic.getParameterNode(), widget.panel.segment.command()
    widget.ui.inputSelector.setCurrentNode(volume)
    assert said in widget.ui.taskNoteLabel.text
    entry = widget.panel.segment.choice.current
    widget.logic.runs.start(command, entry=entry, parameter=parameter)  # a script does not ask
    reports: list[tuple] = []
    panel_cases.live(lambda: bool(reports.extend(widget.logic.runs.poll()) or ended(reports)))
    assert reports[-1][:2] == ("failed", reason)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0

    widget.ui.forceCheckBox.checked = True
    assert run(widget).startswith("Done in "), widget.ui.statusLabel.text


def ended(reports: list[tuple]) -> bool:
    return any(each[0] in ("finished", "failed", "cancelled") for each in reports)


def test_the_current_slice_of_the_view_is_segmented_and_the_others_are_left(
    warm_widget: SimpleNamespace, frame: np.ndarray
) -> None:
    widget = warm_widget
    stack = np.stack([frame, frame[::-1], frame[:, ::-1]])
    volume = colour_volume(stack)
    volume.SetSpacing(0.5, 0.5, 3.0)
    view = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceNode")
    view.SetOrientationToAxial() if hasattr(view, "SetOrientationToAxial") else None
    view.JumpSliceByOffsetting(0, 0, 3.0)
    view.SetSliceOffset(3.0)
    probability = expected(None, stack[1:2])[0]
    choose(widget, volume, what="slice")
    widget.ui.thresholdSlider.value = max(0.01, round(float(np.median(probability)), 2))
    assert run(widget).startswith("Done in "), widget.ui.statusLabel.text
    found = voxels(widget, volume)
    assert found[0].sum() == found[2].sum() == 0
    assert (found[1] == (probability >= widget.ui.thresholdSlider.value)).mean() > 0.98


def test_cancelling_a_run_leaves_no_result_and_the_next_run_works(
    widget: SimpleNamespace, weights: Path, frame: np.ndarray
) -> None:
    volume = colour_volume(np.stack([frame] * 200))
    choose(widget, volume, what="volume", weights=weights)
    widget.ui.applyButton.click()
    panel_cases.live(lambda: widget.ui.progressBar.maximum == 200)
    widget.ui.applyButton.click()
    panel_cases.live(lambda: not widget.panel.segment.running)
    assert "Cancelled" in widget.ui.statusLabel.text
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    widget.ui.whatComboBox.currentIndex = 1
    widget.ui.firstSpinBox.value, widget.ui.lastSpinBox.value = 2, 3
    assert run(widget).startswith("Done in ")


def test_a_worker_that_is_killed_is_a_failure_with_a_remedy_and_the_next_run_works(
    widget: SimpleNamespace, weights: Path, frame: np.ndarray
) -> None:
    volume = colour_volume(np.stack([frame] * 200))
    choose(widget, volume, what="volume", weights=weights)
    widget.ui.applyButton.click()
    panel_cases.live(lambda: widget.ui.progressBar.maximum == 200)
    widget.panel.segment.runs.session.worker._process.kill()
    panel_cases.live(lambda: not widget.panel.segment.running)
    assert "worker" in widget.ui.statusLabel.text
    assert widget.ui.applyButton.enabled
    widget.ui.whatComboBox.currentIndex = WHAT.index("range")
    widget.ui.firstSpinBox.value = widget.ui.lastSpinBox.value = 7
    assert run(widget).startswith("Done in ")


def test_weights_that_are_none_are_a_failure_with_a_remedy(
    warm_widget: SimpleNamespace, tmp_path: Path, frame: np.ndarray
) -> None:
    widget = warm_widget
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights at all")
    choose(widget, colour_volume(frame), what="volume", weights=broken)
    status = run(widget)
    assert status.startswith("<b>")
    assert "not weights" in status
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs Linux or macOS: SIGSTOP")
def test_one_slice_never_blocks_the_main_thread_for_long(
    warm_widget: SimpleNamespace,
    weights: Path,
    frame: np.ndarray,
    sorting_time: Callable[[], float],
) -> None:
    """No call of the panel waits for the worker, which stands still; nor does one compute much.

    That is no more CPU time than sorting some numbers takes.
    """
    widget = warm_widget
    volume = colour_volume(np.tile(frame, (8, 6, 1))[:512, :480])
    choose(widget, volume, what="volume", weights=weights)
    run(widget)  # the network is loaded, and Python has imported what it needs
    segment, longest = widget.panel.segment, 0.0
    worker = segment.runs.session.worker._process
    worker.send_signal(signal.SIGSTOP)
    waiting = threading.Timer(300, worker.send_signal, [signal.SIGCONT])
    waiting.start()
    widget.ui.applyButton.click()
    for _ in range(20):
        segment.onTimer()
        QtCore.QThread.msleep(5)
    assert waiting.is_alive(), "a call waited until the worker went on"
    waiting.cancel()
    worker.send_signal(signal.SIGCONT)
    sorting = [sorting_time()]
    while segment.running:
        started = time.thread_time()
        segment.onTimer()
        longest = max(longest, time.thread_time() - started)
        QtCore.QThread.msleep(5)
    sorting.append(sorting_time())
    assert longest < max(sorting)
    assert widget.ui.statusLabel.text.startswith("Done in ")


def test_a_dicom_video_goes_from_the_file_to_segmentations_and_back_to_dicom_seg(
    widget: SimpleNamespace, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import test_dicom_plugin as plugin_cases

    write_studies(tmp_path / "phantom", frames=6, seed=3, size=(64, 80))
    file = next(str(p) for p in (tmp_path / "phantom/studies/video").rglob("*") if p.is_file())
    instance = str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)
    inserted = []

    class Database(plugin_cases.Database):
        isOpen = True

        def fileForInstance(self, uid: str) -> str:
            return file if uid == instance else ""

        def instanceValue(self, uid: str, tag: str) -> str:
            return self.fileValue(file, tag) if uid == instance else ""

        def prepareInsert(self) -> None:
            assert not inserted

        def insert(self, path: str, store: bool, thumbnail: bool) -> None:
            inserted.append(path)

        def updateDisplayedFields(self) -> None:
            assert inserted

    monkeypatch.setattr(slicer, "dicomDatabase", Database(), raising=False)
    with plugin_cases.installed(monkeypatch) as module:
        reader = module.SAM2UNetDICOMVideoPluginClass()
        (loadable,) = reader.examine([[file]])
        assert reader.load(loadable)
    browser = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
    proxy = browser.GetProxyNode(browser.GetMasterSequenceNode())
    assert widget.ui.inputSelector.currentNode() is proxy  # it is shown, so it is chosen
    choose(widget, proxy, what="sequence", weights=weights)
    widget.ui.thresholdSlider.value = 0.5
    assert run(widget).startswith("Done in "), widget.ui.statusLabel.text

    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(
        QtWidgets.QFileDialog, "getExistingDirectory", staticmethod(lambda *_: str(out))
    )
    widget.ui.exportButton.click()
    panel_cases.live(lambda: not widget.panel.segment.running)
    assert widget.ui.statusLabel.text.startswith("Written: "), widget.ui.statusLabel.text
    (written,) = out.glob("*.dcm")
    seg = pydicom.dcmread(written)
    assert seg.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    assert instance in str(seg.ReferencedSeriesSequence)
    assert inserted == [str(written)]
