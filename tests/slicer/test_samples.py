"""Example data in Slicer's Sample Data module, drawn by the real worker."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import panel_cases
import pydicom
import pytest
import slicer
import slicer_sources
import slicer_stand_ins
from PIL import Image
from test_dicom_plugin import PLUGIN, Bar, DICOMLoadable, DICOMPlugin

ICONS = panel_cases.MODULE.parent / "Resources" / "Icons"


class SampleDataSource:
    """As in Slicer's SampleData.py: the fields, each but the first ones a list."""

    def __init__(self, *, sampleName: str, thumbnailFileName: str, customDownloader: Any) -> None:
        self.sampleName = self.sampleDescription = sampleName
        self.thumbnailFileName, self.customDownloader = thumbnailFileName, customDownloader
        self.uris: list[str] = []
        self.fileNames: list[str] = []
        self.nodeNames: list[str] = []


class SampleDataLogic:
    """As in Slicer's SampleData.py, with the arguments that it has there and no others."""

    @staticmethod
    def registerCustomSampleDataSource(
        category: str,
        *,
        sampleName: str,
        uris: str,
        fileNames: str,
        nodeNames: str,
        customDownloader: Any,
        thumbnailFileName: str,
    ) -> None:
        source = SampleDataSource(
            sampleName=sampleName,
            thumbnailFileName=thumbnailFileName,
            customDownloader=customDownloader,
        )
        source.uris, source.fileNames, source.nodeNames = [uris], [fileNames], [nodeNames]
        held = slicer.modules.sampleDataSources.setdefault(category, [])
        if all(each.sampleName != sampleName for each in held):
            held.append(source)


class Database:
    """`slicer.dicomDatabase`, open or not; notes what is inserted."""

    def __init__(self, *, isOpen: bool) -> None:
        self.isOpen = isOpen
        self.inserted: list[str] = []

    def prepareInsert(self) -> None:
        pass

    def updateDisplayedFields(self) -> None:
        pass

    def insert(self, file: str, store: bool, thumbnail: bool) -> None:
        assert not store
        assert not thumbnail
        self.inserted.append(file)

    def instanceForFile(self, file: str) -> str:
        if file not in self.inserted:
            return ""
        return str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)

    def fileValue(self, _file: str, _tag: str) -> str:
        return ""


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Slicer with the module and its samples registered."""
    library = types.ModuleType("DICOMLib")
    library.DICOMLoadable, library.DICOMPlugin = DICOMLoadable, DICOMPlugin
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.syspath_prepend(str(panel_cases.MODULE.parent))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    errors: list[str] = []
    selected: list[str] = []
    with (
        slicer_stand_ins.running_slicer(panel_cases.MODULE, tmp_path / "Slicer.ini") as application,
        slicer_stand_ins.real_scene(),
    ):
        monkeypatch.setitem(sys.modules, "DICOMLib", library)
        settings = application.qt.QSettings()
        settings.setValue("SAM2UNet/kind", "existing")
        settings.setValue("SAM2UNet/python", sys.executable)
        settings.sync()
        monkeypatch.setattr(slicer.modules, "sampleDataSources", {}, raising=False)
        monkeypatch.setattr(slicer, "dicomDatabase", Database(isOpen=True), raising=False)
        monkeypatch.setattr(slicer.util, "createProgressDialog", lambda maximum, **_: Bar(maximum))
        monkeypatch.setattr(slicer.util, "errorDisplay", errors.append)
        monkeypatch.setattr(slicer.util, "selectModule", selected.append)
        monkeypatch.setattr(slicer.util, "setSliceViewerLayers", lambda **_: None)
        checkout = slicer_sources.checkout()
        if checkout is None:
            stand_in = types.ModuleType("SampleData")
            stand_in.SampleDataLogic = SampleDataLogic
            monkeypatch.setitem(sys.modules, "SampleData", stand_in)
        else:
            path = checkout / "Modules" / "Scripted" / "SampleData" / "SampleData.py"
            monkeypatch.delitem(sys.modules, "SampleData", raising=False)
            slicer_sources._load("SampleData", path)
        plugin = importlib.import_module("SAM2UNetDICOMVideoPlugin")
        plugin.SAM2UNetDICOMVideoPlugin(SimpleNamespace())
        module = importlib.import_module("SAM2UNet")
        module.SAM2UNet(SimpleNamespace(path=str(panel_cases.MODULE), icon=None))
        _signal, registered = slicer.app.connected[-1]
        registered()
        registered()  # as a reloaded module does
        yield SimpleNamespace(errors=errors, selected=selected, data=tmp_path / "data")
        sys.modules.pop("SampleData", None)


def source(name: str) -> Any:
    (found,) = (
        each for each in slicer.modules.sampleDataSources["SAM2-UNet"] if each.sampleName == name
    )
    return found


def test_the_samples_are_in_a_category_of_their_own_with_a_picture(
    running: SimpleNamespace,
) -> None:
    held = slicer.modules.sampleDataSources["SAM2-UNet"]
    assert [each.sampleName for each in held] == ["Drawn colonoscopy clip", "Drawn volume"]
    for each in held:
        picture = np.asarray(Image.open(each.thumbnailFileName).convert("RGB"))
        assert picture.std() > 20


def test_the_clip_is_drawn_imported_and_loaded_as_any_dicom_video(
    running: SimpleNamespace,
) -> None:
    (sequence,) = source("Drawn colonoscopy clip").customDownloader(
        source("Drawn colonoscopy clip")
    )
    assert running.errors == []
    assert sequence.GetNumberOfDataNodes() == 100
    assert sequence.GetNthDataNode(0).GetImageData().GetDimensions() == (640, 480, 1)
    (file,) = slicer.dicomDatabase.inserted
    assert Path(file).is_relative_to(running.data)
    instance = str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)
    assert sequence.GetAttribute("DICOM.instanceUIDs") == instance
    before = Path(file).stat().st_mtime_ns
    source("Drawn colonoscopy clip").customDownloader(source("Drawn colonoscopy clip"))
    assert Path(file).stat().st_mtime_ns == before  # it is drawn once


def test_the_clip_is_loaded_without_a_database_too(
    running: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slicer, "dicomDatabase", Database(isOpen=False))
    (sequence,) = source("Drawn colonoscopy clip").customDownloader(
        source("Drawn colonoscopy clip")
    )
    assert sequence.GetNumberOfDataNodes() == 100
    assert slicer.dicomDatabase.inserted == []


def test_the_volume_is_drawn_and_loaded(
    running: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[tuple[str, Any]] = []
    monkeypatch.setattr(
        slicer.util, "loadVolume", lambda file, given: loaded.append((file, given)) or "node"
    )
    assert source("Drawn volume").customDownloader(source("Drawn volume")) == ["node"]
    ((file, given),) = loaded
    assert Path(file).read_bytes()[:4] == b"NRRD"
    assert given == {"name": "Drawn volume"}


def test_without_an_environment_one_message_leads_to_setup(
    running: SimpleNamespace, tmp_path: Path
) -> None:
    importlib.import_module("SAM2UNetLib.Settings").keep("python", str(tmp_path / "gone"))
    assert source("Drawn volume").customDownloader(source("Drawn volume")) == []
    (message,) = running.errors
    assert "no such file" in message
    assert "Setup" in message
    assert running.selected == ["SAM2UNet"]


def test_drawing_can_be_cancelled_and_leaves_no_file(
    running: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(maximum: int, **_: Any) -> Bar:
        bar = Bar(maximum)
        bar.wasCanceled = True
        return bar

    monkeypatch.setattr(slicer.util, "createProgressDialog", cancelled)
    assert source("Drawn volume").customDownloader(source("Drawn volume")) == []
    assert "cancelled" in running.errors[0]
    assert not list(running.data.rglob("*.nrrd*"))
