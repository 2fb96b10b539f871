"""Makes the pictures of the Slicer panel in its states. Usage: make_panel_pictures.py [DIR [dark]].

The panel is the module's own form and code over a real MRML scene; Qt's widgets are PySide6's, and
those of CTK and Slicer are the stand-ins of the tests. Nothing is run: the states are said.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "slicer"))

import panel_cases  # noqa: E402
import qt_stand_ins  # noqa: E402
import slicer  # noqa: E402
from PIL import Image  # noqa: E402
from PySide6 import QtCore  # noqa: E402

qt_stand_ins.speak_pythonqt(__name__)
WIDTH = 430
COLOURS = 48
"""Few colours make small files; the panel is grey, blue and black."""


def ready(opened: SimpleNamespace) -> None:
    """An image and tasks are there."""
    panel_cases.slice_view("Red")
    panel_cases.colour_volume("5: Colonoscopy")
    say(opened, ("offer", panel_cases.offer()))


def no_environment(opened: SimpleNamespace) -> None:
    """The module was just installed."""
    panel_cases.slice_view("Red")
    panel_cases.colour_volume("5: Colonoscopy")


def mismatch(opened: SimpleNamespace) -> None:
    """The chosen task is not made for the image."""
    ready(opened)
    opened.logic.rejections["polyp"] = (
        "this is a fundus photograph (OP); the task 'polyp' is made for endoscopy, photographs "
        "(ES, XC)"
    )
    node = panel_cases.colour_volume("3: Fundus photograph", modality="OP")
    opened.ui.inputSelector.setCurrentNode(node)


def running(opened: SimpleNamespace) -> None:
    """A run goes on."""
    ready(opened)
    opened.ui.applyButton.click()
    say(opened, ("progress", 132, 480, 74.0))


def finished(opened: SimpleNamespace) -> None:
    """A run is done and can be refined."""
    ready(opened)
    opened.ui.applyButton.click()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "5: Colonoscopy polyp")
    opened.logic.canUndo = True
    opened.panel.segment._started -= 0.7
    say(opened, ("finished", node))


def edited(opened: SimpleNamespace) -> None:
    """A person edited the result, then moved the threshold."""
    finished(opened)
    opened.logic.isEdited = True
    opened.ui.thresholdSlider.value = 0.62
    opened.panel.segment.onTimer()


def warned(opened: SimpleNamespace) -> None:
    """A run is done, and something was guessed on the way."""
    ready(opened)
    opened.ui.applyButton.click()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "5: Colonoscopy polyp")
    opened.panel.segment._started -= 0.7
    texts = ["damaged pixels that the decoder has filled in (frames 12, 13)", "a frame is missing"]
    say(opened, ("warned", texts), ("finished", node))


def failed(opened: SimpleNamespace) -> None:
    """A run failed."""
    ready(opened)
    opened.ui.logCollapsibleButton.collapsed = False
    opened.ui.applyButton.click()
    what = "out of memory on the GPU"
    say(opened, ("failed", what, "choose CPU as the device under Advanced, or fewer frames"))


def setup(opened: SimpleNamespace) -> None:
    """Nothing was built yet."""
    opened.ui.tabWidget.currentIndex = 2


def building(opened: SimpleNamespace) -> None:
    """An environment is being built."""
    opened.ui.tabWidget.currentIndex = 2
    panel = opened.panel.environment
    panel.builder = SimpleNamespace(cancel=list, poll=list)
    panel.refresh()
    panel.ui.planLabel.text = "\n".join(panel.plan().text().splitlines()[1:4])
    for line in (
        "Collecting torch==2.13.0",
        "  Downloading torch-2.13.0%2Bcpu-cp312-cp312-win_amd64.whl (196.1 MB)",
        "Collecting monai<1.7,>=1.6.1",
    ):
        panel._show([("line", line)])
    panel._show([("step", 3, 4, "Installing packages"), ("progress", 0.38)])


def folder(opened: SimpleNamespace) -> None:
    """A folder is being segmented."""
    ready(opened)
    opened.ui.tabWidget.currentIndex = 1
    opened.ui.batchInputPath.currentPath = "D:/archive/2026"
    opened.ui.batchOutputPath.currentPath = "D:/results"
    panel = opened.panel.batch
    panel.batch = SimpleNamespace(cancel=list, poll=list)
    panel.refresh()
    batch = panel_cases.importlib.import_module("SAM2UNetLib.Batch")
    done = {"done": 412, "empty": 187, "failed": 1, "skipped": 24}
    warnings = {"window_guessed": 31, "pixels_concealed": 2}
    panel._showState(batch.BatchState(done, 1630, 1475.0, warnings))


STATES: dict[str, tuple[Callable[[SimpleNamespace], None], bool, int]] = {
    "no-environment": (no_environment, False, 610),
    "ready": (ready, True, 560),
    "mismatch": (mismatch, True, 600),
    "running": (running, True, 580),
    "finished": (finished, True, 730),
    "edited": (edited, True, 790),
    "warned": (warned, True, 780),
    "failed": (failed, True, 700),
    "folder": (folder, True, 540),
    "setup": (setup, False, 380),
    "building": (building, False, 560),
}
"""Name, what brings it about, whether there is an environment, and the height in pixels."""


def take(name: str, target: Path) -> Path:
    """Bring the panel into a state and save its picture."""
    state, environment, height = STATES[name]
    with tempfile.TemporaryDirectory() as settings:
        python = sys.executable if environment else ""
        with panel_cases.opened_panel(Path(settings), python=python) as opened:
            opened.form.resize(WIDTH, height)
            opened.form.show()
            state(opened)
            if not environment:
                opened.ui.environmentPath.currentPath = "C:/Users/me/AppData/Local/SAM2UNet"
                panel_cases.live(lambda: opened.panel.environment._driver.answered)
            opened.app.processEvents()
            data = QtCore.QBuffer()
            data.open(QtCore.QIODevice.OpenModeFlag.WriteOnly)
            opened.form.grab().save(data, "PNG")
    picture = Image.open(io.BytesIO(bytes(data.data().data()))).convert("RGB")
    file = target / f"slicer-{name}.png"
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    return file


def say(opened: SimpleNamespace, *events: tuple) -> None:
    """Let the logic say something and the panel's timer hear it."""
    opened.logic.events += events
    opened.panel.segment.onTimer()


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "screenshots"
    if sys.argv[2:] == ["dark"]:  # to look at; QT_SCALE_FACTOR=1.5 makes them larger
        qt_stand_ins.go_dark()
    for name in STATES:
        print(take(name, target))
