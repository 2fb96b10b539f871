"""A case from DICOM to DICOM by the panel's own buttons: today's run, tomorrow's correction.

A DICOM folder becomes a clip in the scene, a run, an edit in Segment Editor, a saved scene, a scene
that is opened again, a corrected DICOM SEG that refers to the right frames.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import panel_cases
import qt_stand_ins
import slicer
import test_dicom_plugin as plugin_cases
from PySide6 import QtWidgets
from test_scene_files import saved_and_opened
from test_widget_run import WHAT, expected, run, widget

from sam2unet_core.phantom.dicom import write_studies

__all__ = ["widget"]  # a fixture
qt_stand_ins.speak_pythonqt(__name__)
FRAMES = 5


class Database(plugin_cases.Database):
    """`slicer.dicomDatabase` with the files of one folder."""

    isOpen = True

    def __init__(self, folder: Path) -> None:
        found = [path for path in folder.rglob("*") if path.is_file()]
        headers = {path: pydicom.dcmread(path, stop_before_pixels=True) for path in found}
        self.files = {str(header.SOPInstanceUID): str(path) for path, header in headers.items()}
        self.inserted: list[str] = []

    def fileForInstance(self, uid: str) -> str:
        return self.files.get(uid, "")

    def instanceValue(self, uid: str, tag: str) -> str:
        return self.fileValue(self.files[uid], tag) if uid in self.files else ""

    def prepareInsert(self) -> None:
        pass

    def insert(self, path: str, store: bool, thumbnail: bool) -> None:
        self.inserted.append(path)

    def updateDisplayedFields(self) -> None:
        pass


@pytest.fixture
def clip(
    widget: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SimpleNamespace:
    """A video of a DICOM folder, loaded as Slicer's DICOM module does it."""
    write_studies(tmp_path / "phantom", frames=FRAMES, seed=3, size=(64, 80))
    folder = tmp_path / "phantom" / "studies" / "video"
    database = Database(folder)
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    with plugin_cases.installed(monkeypatch) as module:
        reader = module.SAM2UNetDICOMVideoPluginClass()
        (loadable,) = reader.examine([list(database.files.values())])
        assert reader.load(loadable)
    ((instance, file),) = database.files.items()
    return SimpleNamespace(database=database, instance=instance, file=file)


def threshold(frames: list[int]) -> float:
    """A threshold at which the starter network finds a tenth of these frames."""
    nodes = [browser().GetMasterSequenceNode().GetNthDataNode(each) for each in frames]
    pixels = np.concatenate([slicer.util.arrayFromVolume(node) for node in nodes])
    return float(np.quantile(expected(None, pixels), 0.9))


def browser() -> Any:
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")


def frame_node() -> Any:
    return browser().GetProxyNode(browser().GetMasterSequenceNode())


def look_at(frame: int) -> None:
    browser().SetSelectedItemNumber(frame)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser())


def shown(node: Any) -> np.ndarray:
    """The first segment on the frame that is shown, `(H, W)`."""
    segmentation = node.GetSegmentation()
    if not segmentation.GetNumberOfSegments():
        return np.zeros((64, 80), np.uint8)
    segment = segmentation.GetNthSegmentID(0)
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, frame_node())[0]


def save(widget: SimpleNamespace, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Press *Save as DICOM SEG...* and return what was written."""
    folder.mkdir()
    monkeypatch.setattr(
        QtWidgets.QFileDialog, "getExistingDirectory", staticmethod(lambda *_: str(folder))
    )
    assert widget.ui.exportButton.enabled, widget.ui.exportButton.toolTip
    widget.ui.exportButton.click()
    panel_cases.live(lambda: not widget.panel.segment.running)
    assert widget.ui.statusLabel.text.startswith("Written: "), widget.ui.statusLabel.text
    (written,) = folder.glob("*.dcm")
    return highdicom.seg.segread(written)


def masks_of(seg: Any, instance: str, frames: list[int]) -> np.ndarray:
    return seg.get_pixels_by_source_frame(
        instance, frames, segment_numbers=[1], ignore_spatial_locations=True
    )[..., 0]


def test_a_frame_is_segmented_shown_and_saved_as_that_frame(
    widget: SimpleNamespace,
    clip: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Frame 3 of the clip is not exported as frame 1, and shows on frame 3 alone."""
    look_at(2)
    assert widget.ui.inputSelector.currentNode() is frame_node()
    widget.ui.thresholdSlider.value = round(threshold([2]), 3)
    assert widget.ui.placeLabel.text == f"Frame 3 of {FRAMES}"
    assert run(widget).startswith("Done in "), widget.ui.statusLabel.text
    node = widget.ui.outputSelector.currentNode()
    mask = shown(node)
    assert mask.any()
    sequence = browser().GetSequenceNode(node)
    assert sequence.GetNumberOfDataNodes() == 1
    assert not widget.ui.show3DButton.enabled
    seg = save(widget, tmp_path / "out", monkeypatch)
    assert np.array_equal(masks_of(seg, clip.instance, [3])[0], mask)
    items = seg.PerFrameFunctionalGroupsSequence
    numbers = {
        int(source.ReferencedFrameNumber)
        for item in items
        for derivation in item.DerivationImageSequence
        for source in derivation.SourceImageSequence
    }
    assert numbers == {3}


def test_a_case_is_finished_tomorrow_and_says_what_a_person_did(
    widget: SimpleNamespace,
    clip: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    widget.ui.whatComboBox.currentIndex = WHAT.index("sequence")
    widget.ui.thresholdSlider.value = round(threshold(list(range(FRAMES))), 3)
    assert run(widget).startswith("Done in "), widget.ui.statusLabel.text
    node = widget.ui.outputSelector.currentNode()
    today = save(widget, tmp_path / "today", monkeypatch)
    assert today.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    before = masks_of(today, clip.instance, list(range(1, FRAMES + 1)))

    look_at(3)
    segment = node.GetSegmentation().GetNthSegmentID(0)
    painted = shown(node).copy()
    painted[5:9, 60:70] ^= 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(painted[None], node, segment, frame_node())
    look_at(0)

    widget.exit()
    saved_and_opened(slicer.mrmlScene, tmp_path)
    widget.enter()
    panel_cases.live(lambda: bool(widget.panel.segment.choice.entries))
    look_at(3)
    assert widget.ui.inputSelector.currentNode() is frame_node()
    assert widget.ui.outputSelector.currentNode() is not None
    assert np.array_equal(shown(widget.ui.outputSelector.currentNode()), painted)

    tomorrow = save(widget, tmp_path / "tomorrow", monkeypatch)
    (described,) = tomorrow.SegmentSequence
    assert described.SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert described.SegmentLabel == "Polyp"
    after = masks_of(tomorrow, clip.instance, list(range(1, FRAMES + 1)))
    assert np.array_equal(after[3], painted)
    assert np.array_equal(after[[0, 1, 2, 4]], before[[0, 1, 2, 4]])
    assert tomorrow.StudyInstanceUID == pydicom.dcmread(clip.file).StudyInstanceUID
    assert len(clip.database.inserted) == 2
