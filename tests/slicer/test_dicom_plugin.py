"""The reader of DICOM video: what it offers to load, and what it makes of the frames."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pydicom
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import panel_cases
import slicer
import slicer_sources
import slicer_stand_ins

from sam2unet_core.phantom.dicom import write_studies

PLUGIN = panel_cases.ROOT / "slicer_extension" / "SAM2UNetDICOMVideoPlugin"
CLIP = {"firstFrame": "0", "step": "8", "scale": "2", "rows": "48", "columns": "64"}
FRAMES = 40
"""More than the plug-in reads at once."""


class DICOMLoadable:
    """As in Slicer's DICOMLib: the plug-in fills it in."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.name = self.tooltip = self.warning = ""
        self.selected = False
        self.confidence = 0.5


class DICOMPlugin:
    """As in Slicer's DICOMLib, as far as the plug-in uses it."""

    def __init__(self) -> None:
        self.tags = {"seriesDescription": "0008,103E", "seriesNumber": "0020,0011"}
        self.inHierarchy: list[Any] = []

    def addSeriesInSubjectHierarchy(self, _loadable: Any, node: Any) -> None:
        self.inHierarchy.append(node)


class Database:
    """`slicer.dicomDatabase`: values of files, but none of the file meta information."""

    def fileValue(self, file: str, tag: str) -> str:
        group, element = (int(part, 16) for part in tag.split(","))
        if group == 2:
            return ""
        value = pydicom.dcmread(file, stop_before_pixels=True).get((group, element))
        return "" if value is None else str(value.value)

    def instanceForFile(self, file: str) -> str:
        return self.fileValue(file, "0008,0018")


class Bar:
    """`slicer.util.createProgressDialog`."""

    def __init__(self, maximum: int) -> None:
        self.maximum, self.value, self.wasCanceled, self.closed = maximum, 0, False, False

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "phantom"
    write_studies(folder, frames=FRAMES, seed=3, size=(48, 64))
    return folder / "studies"


def put_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the plug-in a stand-in of Slicer's DICOMLib, unless Slicer's sources are there."""
    if slicer_sources.checkout() is None:
        library = types.ModuleType("DICOMLib")
        library.DICOMLoadable, library.DICOMPlugin = DICOMLoadable, DICOMPlugin
        monkeypatch.setitem(sys.modules, "DICOMLib", library)


@contextlib.contextmanager
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """Give the plug-in, with stand-ins for Slicer's DICOMLib and its windows."""
    put_library(monkeypatch)
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.setattr(slicer.util, "createProgressDialog", Bar)
    monkeypatch.setattr(slicer.util, "setSliceViewerLayers", lambda **_: None)
    yield importlib.import_module("SAM2UNetDICOMVideoPlugin")


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.syspath_prepend(str(panel_cases.MODULE.parent))
    bars: list[Bar] = []
    errors: list[str] = []
    shown: list[Any] = []
    with (
        slicer_stand_ins.running_slicer(panel_cases.MODULE, tmp_path / "Slicer.ini") as running,
        slicer_stand_ins.real_scene(),
    ):
        put_library(monkeypatch)
        settings = running.qt.QSettings()
        settings.setValue("SAM2UNet/kind", "existing")
        settings.setValue("SAM2UNet/python", sys.executable)
        settings.sync()
        monkeypatch.setattr(slicer, "dicomDatabase", Database(), raising=False)
        monkeypatch.setattr(
            slicer.util,
            "createProgressDialog",
            lambda maximum: bars.append(Bar(maximum)) or bars[-1],
        )
        monkeypatch.setattr(slicer.util, "errorDisplay", errors.append)
        monkeypatch.setattr(
            slicer.util, "setSliceViewerLayers", lambda background, fit: shown.append(background)
        )
        module = importlib.import_module("SAM2UNetDICOMVideoPlugin")
        yield SimpleNamespace(
            module=module,
            reader=module.SAM2UNetDICOMVideoPluginClass(),
            bars=bars,
            errors=errors,
            shown=shown,
        )


def files(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.rglob("*")) if path.is_file()]


def test_only_video_is_offered_and_before_other_readers(
    plugin: SimpleNamespace, studies: Path
) -> None:
    for name in ("endoscopy", "cine"):
        assert plugin.reader.examine([files(studies / name)]) == []
    (loadable,) = plugin.reader.examine([files(studies / "video")])
    assert loadable.files == files(studies / "video")
    assert loadable.selected
    assert loadable.confidence > 0.7  # of Slicer's image sequence reader
    assert loadable.name
    assert loadable.warning == ""


def test_cine_in_a_video_transfer_syntax_is_offered_too(
    plugin: SimpleNamespace, studies: Path, tmp_path: Path
) -> None:
    dataset = pydicom.dcmread(files(studies / "video")[0])
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.save_as(tmp_path / "us.dcm")
    (loadable,) = plugin.reader.examineForImport([[str(tmp_path / "us.dcm")]])
    assert loadable.files == [str(tmp_path / "us.dcm")]


def test_the_hook_is_found_by_slicers_dicom_module(plugin: SimpleNamespace) -> None:
    parent = SimpleNamespace()
    plugin.module.SAM2UNetDICOMVideoPlugin(parent)
    assert parent.hidden
    found = slicer.modules.dicomPlugins["SAM2UNetDICOMVideoPlugin"]
    assert found is plugin.module.SAM2UNetDICOMVideoPluginClass


def test_a_video_becomes_a_sequence_of_its_frames(plugin: SimpleNamespace, studies: Path) -> None:
    (loadable,) = plugin.reader.examine([files(studies / "video")])
    sequence = plugin.reader.load(loadable)
    assert plugin.errors == []
    assert sequence.GetNumberOfDataNodes() == FRAMES
    assert sequence.GetIndexUnit() == "s"
    expected = true_frames(loadable.files[0])
    for index in (0, 1, 31, 32, FRAMES - 1):
        node = sequence.GetNthDataNode(index)
        found = slicer.util.arrayFromVolume(node)[0]
        difference = np.abs(found.astype(int) - expected.astype(int)).mean(axis=(1, 2, 3))
        assert np.argmin(difference) == index
        assert difference[index] < 3  # two ways to convert colours
    instance = Database().instanceForFile(loadable.files[0])
    assert sequence.GetNthDataNode(0).GetAttribute("DICOM.instanceUIDs") == instance
    assert [bar.closed for bar in plugin.bars] == [True]
    assert plugin.bars[0].value == FRAMES
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode") == 1


def test_a_video_is_loaded_to_its_end_where_its_header_announces_less(
    plugin: SimpleNamespace, studies: Path, tmp_path: Path
) -> None:
    dataset = pydicom.dcmread(files(studies / "video")[0])
    dataset.NumberOfFrames = 32
    dataset.save_as(tmp_path / "short.dcm")
    (loadable,) = plugin.reader.examine([[str(tmp_path / "short.dcm")]])
    sequence = plugin.reader.load(loadable)
    assert plugin.errors == []
    assert sequence.GetNumberOfDataNodes() == FRAMES


def test_what_was_concealed_in_a_video_stays_with_its_sequence(
    plugin: SimpleNamespace, studies: Path, caplog: pytest.LogCaptureFixture
) -> None:
    messages = ["damaged (frame 3)", "damaged (frame 40)", "its clock restarts"]

    class Worker:
        exchange = None

        def __init__(self) -> None:
            self.asked: list[dict[str, Any]] = []

        def request(self, _operation: str, **fields: Any) -> int:
            self.asked.append(fields)
            return len(self.asked)

        def poll(self) -> list[dict[str, Any]]:
            texts = [messages[len(self.asked) - 2], messages[2]]
            warnings = [{"code": None, "message": text} for text in texts]
            video = {"frames": FRAMES, "rows": 4, "columns": 4, "frames_per_second": 25}
            result = {"series": [video]}
            if len(self.asked) > 1:
                result = {"frames": self.asked[-1]["count"], "warnings": warnings}
            return [{"id": len(self.asked), "event": "finished", "result": result}]

        def stop(self) -> None:
            pass

    (loadable,) = plugin.reader.examine([files(studies / "video")])
    reader = plugin.module.VideoReader(
        Worker(), "", takeArray=lambda count: np.zeros((count, 4, 4, 3), np.uint8)
    )
    sequence = plugin.reader._load(loadable, reader)
    told = "\n".join([messages[0], messages[2], messages[1]])
    assert sequence.GetAttribute("SAM2UNet.warnings") == told
    assert "its clock restarts" in caplog.text


def test_a_long_video_is_loaded_in_part_and_the_log_says_so(
    plugin: SimpleNamespace,
    studies: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("ClipChoice", "ClipDialog"):
        library = importlib.import_module(f"SAM2UNetLib.{name}")
        monkeypatch.setattr(library, "LARGE_BYTES", 12_000)
    (loadable,) = plugin.reader.examine([files(studies / "video")])
    with caplog.at_level("INFO"):
        sequence = plugin.reader.load(loadable)
    assert plugin.errors == []
    # 12000 / (24 * 32 * 3) = 5 frames, so every 8th; at full size it would be one of all 40
    assert sequence.GetNumberOfDataNodes() == 5
    found = {name: sequence.GetAttribute(f"SAM2UNet.{name}") for name in CLIP}
    assert found == CLIP
    assert [sequence.GetNthIndexValue(item) for item in (0, 1, 4)] == ["0.000", "0.320", "1.280"]
    assert "loading 5 frames (1 to 40, every 8), size 1/2" in caplog.text
    node = sequence.GetNthDataNode(3)
    assert node.GetImageData().GetDimensions() == (32, 24, 1)
    large = true_frames(loadable.files[0])[24].reshape(24, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(slicer.util.arrayFromVolume(node)[0] - large).mean() < 3
    browser = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
    assert browser.GetPlaybackRateFps() == 25 / 8


def test_rows_go_down_and_columns_to_the_right_as_in_dicom(plugin: SimpleNamespace) -> None:
    matrix = plugin.module._uncalibrated()
    found = [[matrix.GetElement(row, column) for column in range(3)] for row in range(3)]
    assert found == [[-1, 0, 0], [0, -1, 0], [0, 0, 1]]  # LPS to RAS


def test_a_video_that_cannot_be_read_says_why_and_leaves_nothing(
    plugin: SimpleNamespace, tmp_path: Path, studies: Path
) -> None:
    dataset = pydicom.dcmread(files(studies / "video")[0])
    whole = dataset.PixelData
    dataset.PixelData = pydicom.encaps.encapsulate([b"\x00" * (len(whole) // 4 * 2)])
    dataset.save_as(tmp_path / "broken.dcm")
    (loadable,) = plugin.reader.examine([[str(tmp_path / "broken.dcm")]])
    assert plugin.reader.load(loadable) is False
    assert len(plugin.errors) == 1
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSequenceNode") == 0
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVectorVolumeNode") == 0


def test_without_an_environment_the_reason_is_shown(
    plugin: SimpleNamespace, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importlib.import_module("SAM2UNetLib.Settings").keep("python", str(tmp_path / "gone"))
    (loadable,) = plugin.reader.examine([files(studies / "video")])
    assert plugin.reader.load(loadable) is False
    assert "no such file" in plugin.errors[0]


def test_loading_can_be_cancelled(
    plugin: SimpleNamespace, studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(maximum: int) -> Bar:
        bar = Bar(maximum)
        bar.wasCanceled = True
        return bar

    monkeypatch.setattr(slicer.util, "createProgressDialog", cancelled)
    (loadable,) = plugin.reader.examine([files(studies / "video")])
    assert plugin.reader.load(loadable) is False
    assert "cancelled" in plugin.errors[0]


def test_a_disk_that_is_full_leaves_no_half_video(
    plugin: SimpleNamespace, studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reader:
        def video(self) -> Any:
            return importlib.import_module("SAM2UNetLib.ClipChoice").Video(9, 48, 64, 25.0)

        def frames(self, *_: Any) -> Iterator[np.ndarray]:
            yield np.zeros((1, 48, 64, 3), np.uint8)
            raise OSError("the disk is full")

        def close(self) -> None:
            plugin.shown.append("closed")

    monkeypatch.setattr(plugin.module, "makeReader", lambda _file: Reader())
    (loadable,) = plugin.reader.examine([files(studies / "video")])
    assert plugin.reader.load(loadable) is False
    assert plugin.errors == ["the disk is full"]
    assert plugin.shown == ["closed"]
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSequenceNode") == 0


def true_frames(file: str) -> np.ndarray:
    """Return the frames as FFmpeg decodes the stream by itself: `(N, H, W, 3)` uint8."""
    dataset = pydicom.dcmread(file)
    stream = b"".join(pydicom.encaps.generate_fragments(dataset.PixelData))
    with av.open(io.BytesIO(stream)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
