"""What the panel asks for: a segmentation is saved for the image that it was made of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import panel_cases
import pytest
import slicer
from SAM2UNetLib import Collaborators
from SAM2UNetLib import Runs as library
from SAM2UNetLib.Errors import ResultError
from SAM2UNetLib.SegmentationLogic import SegmentationLogic
from SAM2UNetLib.Session import Session
from SAM2UNetLib.WorkerProcess import WorkerProcess

TASK = {"name": "polyp", "classes": []}


class SaidSession:
    """Reports what the test says; notes what is exported."""

    isBusy = isAsking = canRethreshold = canUndo = isEdited = False
    log = ""

    def __init__(self) -> None:
        self.asked: list[tuple] = []
        self.closed = False
        self.task: dict[str, Any] | None = None
        self.reports: list[tuple] = []
        self.exported: list[tuple] = []

    def askForTasks(self) -> None:
        self.asked.append(("tasks",))

    def askRejection(self, question: str, source: Any, task: Any) -> None:
        self.asked.append((question, source, task))

    def rethreshold(self, **_: Any) -> bool:
        return False

    def cancel(self) -> None:
        pass

    def undo(self) -> None:
        pass

    def start(self, request: Any) -> None:
        self.task, self.request = None, request

    def poll(self) -> list[tuple]:
        reports, self.reports = self.reports, []
        return reports

    def exportDicomSeg(self, node: Any, **fields: Any) -> None:
        self.exported.append((node, fields["source"], fields["output"].name))

    def close(self) -> None:
        self.closed = True


class Files:
    """Stands for the folder with the files of the image that is exported."""

    root = Path("study")

    def __init__(self) -> None:
        self.held: tuple[str, ...] = ()

    def gather(self, uids: tuple[str, ...], database: Any) -> str:
        return self.put(self.locate(uids, database))

    def locate(self, uids: tuple[str, ...], _database: Any) -> tuple[str, ...]:
        return uids

    def put(self, files: tuple[str, ...]) -> str:
        self.held = files
        return files[0]

    def clear(self) -> None:
        self.held = ()

    def close(self) -> None:
        pass


@pytest.fixture
def runs(scene):
    return library.Runs(lambda _command, _folders: SaidSession(), makeFiles=Files)


SOURCE = {"modality": "CT", "sop_class_uid": None, "photometric": "MONOCHROME2"}


def test_the_worker_is_asked_once_whether_a_task_is_made_for_a_source(runs):
    assert runs.rejection(SOURCE, TASK) == ""  # no environment yet, so nobody is asked
    runs.askForTasks(["sam2unet"])
    assert [runs.rejection(SOURCE, TASK), runs.rejection(SOURCE, TASK)] == ["", ""]
    _, (question, source, task) = runs.session.asked
    assert (source, task) == (SOURCE, TASK)
    runs.session.reports.append(("rejection", question, "made for something else"))
    assert runs.poll() == [("rejections",)]
    assert runs.rejection(SOURCE, TASK) == "made for something else"
    assert runs.rejection({**SOURCE, "modality": "US"}, TASK) == ""
    assert runs.rejection(None, TASK) == ""
    assert [each[1]["modality"] for each in runs.session.asked[1:]] == ["CT", "US"]


def test_answers_outlive_the_scene_but_not_the_environment(runs):
    runs.askForTasks(["sam2unet"])
    runs.rejection(SOURCE, TASK)
    question = runs.session.asked[-1][0]
    runs.session.reports.append(("rejection", question, "made for something else"))
    runs.poll()
    runs.forget()
    assert runs.rejection(SOURCE, TASK) == "made for something else"
    assert runs.session is None  # no worker was started for it
    runs.askForTasks(["another"])
    assert runs.rejection(SOURCE, TASK) == ""
    assert runs.session.asked[-1][0] == question
    runs.close()
    assert runs.rejection(SOURCE, TASK) == ""


def test_a_worker_that_cannot_be_started_leaves_the_question_open(runs, monkeypatch):
    def fails(*_):
        raise OSError("python: no such file")

    runs.askForTasks(["sam2unet"])
    monkeypatch.setattr(runs.session, "askRejection", fails)
    assert runs.rejection(SOURCE, TASK) == ""


@pytest.mark.parametrize(
    ("made", "needed"),
    [
        (library.Runs, "RunControl"),
        (lambda: panel_cases.SaidRuns(None), "RunControl"),
        (lambda: Session(WorkerProcess(["sam2unet"])), "RunSession"),
        (SaidSession, "RunSession"),
        (lambda: WorkerProcess(["sam2unet"]), "WorkerControl"),
        (SegmentationLogic, "ResultWriter"),
        (Files, "StudyFiles"),
    ],
)
def test_a_collaborator_has_what_is_needed_of_it_stand_ins_too(scene, made, needed):
    assert isinstance(made(), getattr(Collaborators, needed))


def image(uid):
    import numpy as np

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", uid)
    slicer.util.updateVolumeFromArray(node, np.zeros((2, 4, 5), np.int16))
    node.SetAttribute("DICOM.instanceUIDs", uid)
    return node


def start(runs, node, *, force=False, task=TASK):
    fields = {"what": "volume", "sliceView": None, "outputSegmentation": None, "force": force}
    fields |= {"threshold": 0.5, "minimumSize": 0, "keepLargest": False, "smoothing": 0.0}
    entry = SimpleNamespace(name="polyp", bundle=None, task=task)
    runs.start(["sam2unet"], entry=entry, parameter=SimpleNamespace(inputNode=node, **fields))


def segmentation(image: Any, name: str = "result") -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.SetReferenceImageGeometryParameterFromVolumeNode(image)
    node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), image.GetID())
    return node


def test_each_segmentation_is_saved_for_its_own_image_whatever_ran_since(runs, tmp_path):
    """Or findings of one patient would be written into the study of another."""
    first, second = image("1.1"), image("1.2")
    one, two = segmentation(first, "one"), segmentation(second, "two/2")
    start(runs, second)
    runs.session.reports.append(("cancelled",))
    runs.poll()
    runs.exportDicomSeg(["sam2unet"], one, str(tmp_path))
    runs.exportDicomSeg(["sam2unet"], two, str(tmp_path))
    assert runs.session.exported == [(one, "1.1", "one.dcm"), (two, "1.2", "two_2.dcm")]


def test_a_segmentation_of_yesterday_is_saved_without_any_run(runs, tmp_path):
    node = segmentation(image("1.1"))
    runs.exportDicomSeg(["sam2unet"], node, str(tmp_path))
    assert runs.session.exported == [(node, "1.1", "result.dcm")]


def test_a_segmentation_without_an_image_says_what_to_do(runs, tmp_path):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    with pytest.raises(ResultError, match="drawn belongs to no image; choose its image"):
        runs.exportDicomSeg(["sam2unet"], node, str(tmp_path))


def test_a_run_says_that_it_was_forced_only_where_the_worker_refused_the_task(runs):
    node = image("1.1")
    node.SetAttribute("DICOM.instanceUIDs", "")
    task = {**TASK, "accepts": {}}
    for uid, answer, expected in (("", None, False), ("1.1", "", False), ("1.1", "no", True)):
        node.SetAttribute("DICOM.instanceUIDs", uid)
        runs.askForTasks(["sam2unet"])
        source = {**SOURCE, "modality": None}
        if answer is not None:
            runs.rejection(source, task)
            runs.session.reports.append(("rejection", runs.session.asked[-1][0], answer))
            runs.poll()
        start(runs, node, force=True, task=task)
        assert runs.session.request.forced is expected
        runs.close()


@pytest.mark.parametrize("end", [("cancelled",), ("failed", "disk full", ""), ("exported", "f")])
def test_the_studys_files_go_when_its_export_ends(runs, tmp_path, end):
    runs.exportDicomSeg(["sam2unet"], segmentation(image("1.1")), str(tmp_path))
    assert runs.files.held == ("1.1",)
    runs.session.reports.append(end)
    runs.poll()
    assert runs.files.held == ()


def test_a_saved_file_is_never_replaced(runs, tmp_path):
    node = segmentation(image("1.1"), "case [1]")
    for name in ("case__1_.dcm", "case__1__2.dcm", "case__1__3.dcm"):
        runs.exportDicomSeg(["sam2unet"], node, str(tmp_path))
        assert runs.session.exported[-1][2] == name
        (tmp_path / name).write_bytes(b"kept")


def test_the_studys_files_go_when_the_scene_closes(runs, tmp_path):
    runs.exportDicomSeg(["sam2unet"], segmentation(image("1.1")), str(tmp_path))
    assert runs.files.held == ("1.1",)
    runs.forget()
    assert runs.files.held == ()
