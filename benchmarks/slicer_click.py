"""From click to segmentation in 3D Slicer: `python benchmarks/slicer_click.py`.

It uses Slicer's own MRML (`slicer-core`), the module's session and a warm worker with the bundle's
starter network; the event loop polls every 10 ms, like the module's timer. The table gives the time
from `start` to the segmentation in the scene, the longest time for which a single call blocked the
main thread, and the time of the first run. The cases are an axial slice of a 60 x 512 x 512 CT, an
oblique slice at a small angle to it (its mask has voxels in every slice), a 720 x 576 colour frame,
and a 1920 x 1080 frame of a clip.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "slicer_extension" / "SAM2UNet"))
from SAM2UNetLib.Session import Request, Session
from SAM2UNetLib.WorkerProcess import WorkerProcess

POLL_S = 0.01
HEADINGS = ("click to result", "longest block", "in the first run")
LOGICS = {
    "volumes": "vtkSlicerVolumesLogic",
    "sequences": "vtkSlicerSequencesLogic",
    "segmentations": "vtkSlicerSegmentationsModuleLogic",
    "subjecthierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "terminologies": "vtkSlicerTerminologiesModuleLogic",
}


def make_scene() -> Any:
    """Return an empty scene with the Slicer logics that the module uses."""
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
    scene, application = slicer.vtkMRMLScene(), slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    held = {}
    for name, kind in LOGICS.items():
        logic = getattr(slicer, kind)()
        logic.SetMRMLApplicationLogic(application)
        logic.SetMRMLScene(scene)
        held[name] = SimpleNamespace(logic=lambda logic=logic: logic)
    slicer.mrmlScene = scene
    # The logics hold no reference to the application logic.
    slicer.modules = SimpleNamespace(application=application, **held)
    return scene


def click(session: Session, request: Request) -> tuple[float, float]:
    """Return the milliseconds until the segmentation exists, and of the longest blocking call."""
    begun = time.perf_counter()
    session.start(request)
    longest = time.perf_counter() - begun
    finished = False
    while not finished or session.isBusy:
        time.sleep(POLL_S)
        before = time.perf_counter()
        reports = session.poll()
        longest = max(longest, time.perf_counter() - before)
        for report in reports:
            if report[0] in ("failed", "cancelled"):
                raise SystemExit(str(report))
            finished = finished or report[0] == "finished"
    return 1000 * (time.perf_counter() - begun), 1000 * longest


def make_cases(scene: Any) -> list[tuple[str, Request]]:
    """Return the named cases; the threshold is low, so that each has a mask."""
    rng = np.random.default_rng(0)
    axes = np.diag([-1.0, -1.0, 1.0, 1.0])
    ct = slicer.util.addVolumeFromArray(rng.integers(-200, 300, (60, 512, 512), np.int16), axes)
    pixels = rng.integers(0, 255, (1, 576, 720, 3), np.uint8)
    frame = slicer.util.addVolumeFromArray(pixels, axes, "frame", "vtkMRMLVectorVolumeNode")
    cases = []
    for name, node, tilt in (
        ("CT slice 512 x 512", ct, 0.0),
        ("CT oblique, 5 degrees", ct, np.radians(5)),
        ("colour frame 720 x 576", frame, 0.0),
    ):
        view = scene.AddNewNodeByClass("vtkMRMLSliceNode")
        view.SetOrientationToAxial()
        turn = vtk.vtkTransform()
        turn.RotateX(np.degrees(tilt))
        turn.Concatenate(view.GetSliceToRAS())
        view.GetSliceToRAS().DeepCopy(turn.GetMatrix())
        view.UpdateMatrices()
        bounds = [0.0] * 6
        node.GetRASBounds(bounds)
        view.JumpSliceByCentering(*(sum(bounds[i : i + 2]) / 2 for i in (0, 2, 4)))
        request = Request(node, "slice", sliceNode=view, force=True, threshold=0.01)
        cases.append((name, request))
    clip = make_clip(scene, rng.integers(0, 255, (3, 1, 1080, 1920, 3), np.uint8))
    cases.append(("clip frame 1920 x 1080", Request(clip, "slice", force=True, threshold=0.01)))
    return cases


def make_clip(scene: Any, frames: np.ndarray) -> Any:
    """Return a sequence browser of colour frames `(T, 1, H, W, 3)`."""
    held = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "frames")
    for index, pixels in enumerate(frames):
        node = slicer.util.addVolumeFromArray(
            pixels, np.diag([-1.0, -1.0, 1.0, 1.0]), "frame", "vtkMRMLVectorVolumeNode"
        )
        held.SetDataNodeAtValue(node, str(index))
        scene.RemoveNode(node)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "clip")
    browser.SetAndObserveMasterSequenceNodeID(held.GetID())
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    return browser


def main() -> None:
    """Measure, and print a table in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=15)
    given = parser.parse_args()
    cases = make_cases(make_scene())
    worker = WorkerProcess([sys.executable, "-m", "sam2unet_core.cli", "worker"])
    session = Session(worker)
    print("ms, median (largest)    " + "".join(f"{word:>18}" for word in HEADINGS))
    try:
        for name, request in cases:
            _, first = click(session, request)
            found = [click(session, request) for _ in range(given.times)]
            whole, block = (list(values) for values in zip(*found, strict=True))
            cells = [f"{statistics.median(v):.0f} ({max(v):.0f})" for v in (whole, block)]
            print(f"{name:24}" + "".join(f"{cell:>18}" for cell in [*cells, f"{first:.0f}"]))
    finally:
        worker.stop()


if __name__ == "__main__":
    main()
