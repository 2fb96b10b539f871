"""What the panel asks for: a result is saved for the image that it was made of, and no other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import slicer
from SAM2UNetLib import Runs as library
from SAM2UNetLib.Errors import ResultError

TASK = {"name": "polyp", "classes": []}


class SaidSession:
    """Reports what the test says; notes what is exported."""

    isBusy = canRethreshold = False

    def __init__(self) -> None:
        self.task: dict[str, Any] | None = None
        self.reports: list[tuple] = []
        self.exported: list[tuple] = []
        self.worker = SimpleNamespace(log="")

    def start(self, _request: Any) -> None:
        self.task = None

    def poll(self) -> list[tuple]:
        reports, self.reports = self.reports, []
        return reports

    def exportDicomSeg(self, node: Any, image: Any, **fields: Any) -> None:
        self.exported.append((node, image, fields["task"], fields["source"]))

    def close(self) -> None:
        pass


class Source:
    """Stands for the folder with the files of the image that is exported."""

    def __init__(self) -> None:
        self.held: tuple[str, ...] = ()

    def gather(self, uids: tuple[str, ...], _database: Any) -> str:
        self.held = uids
        return uids[0]

    def clear(self) -> None:
        self.held = ()


@pytest.fixture
def runs(scene, monkeypatch):
    runs, session = library.Runs(), SaidSession()
    runs.session, runs.source = session, Source()
    monkeypatch.setattr(runs, "_sessionOf", lambda *_: session)
    return runs


def image(uid):
    import numpy as np

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", uid)
    slicer.util.updateVolumeFromArray(node, np.zeros((2, 4, 5), np.int16))
    node.SetAttribute("DICOM.instanceUIDs", uid)
    return node


def start(runs, node):
    fields = {"what": "volume", "sliceView": None, "outputSegmentation": None, "force": False}
    fields |= {"threshold": 0.5, "minimumSize": 0, "keepLargest": False, "smoothing": 0.0}
    entry = SimpleNamespace(name="polyp", bundle=None)
    runs.start(["sam2unet"], entry=entry, parameter=SimpleNamespace(inputNode=node, **fields))


def finish(runs):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    runs.session.task = TASK
    runs.session.reports.append(("finished", node))
    assert runs.poll() == [("finished", node)]
    return node


@pytest.mark.parametrize("end", [("cancelled",), ("failed", "no memory", "choose cpu")])
def test_a_run_that_came_to_nothing_leaves_the_last_result_its_own_image(runs, tmp_path, end):
    """Or findings of one patient would be written into the study of another."""
    first, second = image("1.1"), image("1.2")
    start(runs, first)
    result = finish(runs)
    start(runs, second)
    runs.session.reports.append(end)
    assert runs.poll() == [end]
    runs.exportDicomSeg(result, str(tmp_path))
    assert runs.session.exported == [(result, first, TASK, "1.1")]


def test_only_the_last_result_can_be_saved(runs, tmp_path):
    start(runs, image("1.1"))
    older = finish(runs)
    start(runs, image("1.2"))
    finish(runs)
    with pytest.raises(ResultError, match="not the result of the last run"):
        runs.exportDicomSeg(older, str(tmp_path))
    runs.forget()
    with pytest.raises(ResultError, match="segment again"):
        runs.exportDicomSeg(older, str(tmp_path))


@pytest.mark.parametrize("end", [("cancelled",), ("failed", "disk full", ""), ("exported", "f")])
def test_the_studys_files_go_when_its_export_ends(runs, tmp_path, end):
    start(runs, image("1.1"))
    runs.exportDicomSeg(finish(runs), str(tmp_path))
    assert runs.source.held == ("1.1",)
    runs.session.reports.append(end)
    runs.poll()
    assert runs.source.held == ()
