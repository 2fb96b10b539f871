"""A scene of Slicer's own MRML with its real logics, and the module's library on the path."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

if sys.version_info[:2] != (3, 11):  # there are no other wheels of slicer-core
    collect_ignore_glob = ["test_*.py"]
ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "slicer_extension" / "SAM2UNet"
for path in (MODULE, Path(__file__).parent):
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))
LOGICS = {
    "volumes": "vtkSlicerVolumesLogic",
    "segmentations": "vtkSlicerSegmentationsModuleLogic",
    "sequences": "vtkSlicerSequencesLogic",
    "terminologies": "vtkSlicerTerminologiesModuleLogic",
    "subjecthierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
}

LAST = ("finished", "failed", "cancelled", "exported")
PATIENCE_S = 300


@pytest.fixture
def scene() -> Iterator[Any]:
    """An empty scene as `slicer.mrmlScene`, and the modules' logics in `slicer.modules`."""
    import slicer
    import slicer.util
    import vtk

    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)  # logics look for Slicer's share
    made = slicer.vtkMRMLScene()
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(made)
    logics = {name: getattr(slicer, kind)() for name, kind in LOGICS.items()}
    for logic in logics.values():
        logic.SetMRMLApplicationLogic(application)
        logic.SetMRMLScene(made)
    slicer.mrmlScene = made
    slicer.modules = SimpleNamespace(
        **{name: SimpleNamespace(logic=lambda held=held: held) for name, held in logics.items()}
    )
    yield made
    made.Clear(True)
    for logic in logics.values():
        logic.SetMRMLScene(None)
    del slicer.mrmlScene, slicer.modules


@pytest.fixture
def volume(scene: Any) -> Callable[..., Any]:
    """Make a volume of a `(k, j, i)` or `(k, j, i, 3)` array."""
    import slicer

    def make(array: Any, *, matrix: Any = None, name: str = "volume") -> Any:
        kind = "vtkMRMLVectorVolumeNode" if np.ndim(array) == 4 else "vtkMRMLScalarVolumeNode"
        matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) if matrix is None else matrix
        return slicer.util.addVolumeFromArray(array, matrix, name, kind)

    return make


@pytest.fixture
def transform(scene: Any) -> Callable[..., Any]:
    """Put a node under a linear transform given as `(4, 4)`."""
    import slicer

    def put(node: Any, matrix: Any) -> Any:
        made = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        slicer.util.updateTransformMatrixFromArray(made, np.asarray(matrix, float))
        node.SetAndObserveTransformNodeID(made.GetID())
        return made

    return put


@pytest.fixture
def slice_view(scene: Any) -> Callable[..., Any]:
    """Make a slice view through a point, given what is on its right and on top, in RAS."""

    def make(right: Any, up: Any, through: Any) -> Any:
        node = scene.AddNewNodeByClass("vtkMRMLSliceNode")
        right, up = np.asarray(right, float), np.asarray(up, float)
        right, up = right / np.linalg.norm(right), up / np.linalg.norm(up)
        axes = (right, up, np.cross(right, up), np.asarray(through, float))
        for column, axis in enumerate(axes):
            for row in range(3):
                node.GetSliceToRAS().SetElement(row, column, axis[row])
        node.UpdateMatrices()
        return node

    return make


@pytest.fixture
def sequence(scene: Any) -> Callable[..., Any]:
    """Make a sequence browser of `(T, k, j, i[, 3])` frames, at 25 frames a second."""
    import slicer

    def make(frames: Any, *, matrix: Any = None) -> Any:
        matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) if matrix is None else matrix
        kind = "vtkMRMLVectorVolumeNode" if frames.ndim == 5 else "vtkMRMLScalarVolumeNode"
        held = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "clip frames")
        held.SetIndexName("time")
        held.SetIndexUnit("s")
        for index, frame in enumerate(frames):
            node = slicer.util.addVolumeFromArray(frame, matrix, "frame", kind)
            held.SetDataNodeAtValue(node, f"{index / 25:.2f}")
            scene.RemoveNode(node)
        browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "clip")
        browser.SetAndObserveMasterSequenceNodeID(held.GetID())
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
        return browser

    return make


@pytest.fixture
def two_classes() -> dict[str, Any]:
    """The content of a `task.json` with two classes that may overlap."""

    def item(value: int, name: str, code: str, rgb: list[int], region: Any) -> dict[str, Any]:
        category = ["SCT", "91723000", "Anatomical Structure"]
        return {
            "value": value,
            "name": name,
            "label": name.title(),
            "category": category,
            "type": ["SCT", code, name.title()],
            "region": region,
            "rgb": rgb,
            "min_area_px": 0,
        }

    return {
        "schema": 1,
        "name": "arm",
        "version": "1.2.0",
        "title": "Arm",
        "image_size": [64, 64],
        "threshold": 0.5,
        "accepts": {"modalities": ["US"], "sop_classes": [], "photometric": []},
        "window": None,
        "classes": [
            item(1, "nerve", "84782009", [255, 0, 51], ["SCT", "40983000", "Arm"]),
            item(2, "vessel", "59820001", [0, 102, 204], None),
        ],
    }


@pytest.fixture
def ct(tmp_path: Path) -> tuple[Path, Any, list[str]]:
    """The folder of a CT of four slices, their values and their instance UIDs, by place."""
    from dicom_cases import write_ct

    return (tmp_path / "ct", *write_ct(tmp_path / "ct"))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an untrained small network and one class, made for endoscopy."""
    import torch

    from sam2unet_core.files import file_sha256
    from sam2unet_core.network import SAM2UNet
    from sam2unet_core.network.checkpoint import save_full
    from sam2unet_core.task import Accepts, Weights, load_preset

    folder = tmp_path_factory.mktemp("bundle")
    (folder / "configs").mkdir()
    (folder / "models").mkdir()
    path = folder / "models" / "model.safetensors"
    accepts = Accepts(modalities=("ES",))
    task = replace(load_preset("polyp"), image_size=(64, 64), accepts=accepts, weights=None)
    torch.manual_seed(5)
    save_full(SAM2UNet("nano").eval(), path, task=task)
    weights = Weights("models/model.safetensors", file_sha256(path), "nano")
    replace(task, weights=weights).save(folder / "configs" / "task.json")
    return folder


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The real worker, warm from its first use on; it may read what tests write."""
    from SAM2UNetLib.WorkerProcess import WorkerProcess

    made = WorkerProcess(
        [sys.executable, "-m", "sam2unet_core.cli", "worker"],
        allowRoots=[tmp_path_factory.getbasetemp()],
        environment={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    yield made
    made.stop()


@pytest.fixture
def session(scene: Any, worker: Any) -> Any:
    """A session with the real worker in an empty scene."""
    from SAM2UNetLib.Session import Session

    return Session(worker)


@pytest.fixture
def run() -> Callable[..., list[Any]]:
    """Poll a session until something has ended; return all that was told."""

    def until_told(session: Any, last: tuple[str, ...] = LAST) -> list[Any]:
        told: list[Any] = []
        limit = time.monotonic() + PATIENCE_S
        while not any(each[0] in last for each in told):
            assert time.monotonic() < limit, f"{told}\n{session.worker.log}"
            told += session.poll()
            time.sleep(0.005)
        return told

    return until_told
