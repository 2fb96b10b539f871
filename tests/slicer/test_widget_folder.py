"""The tabs Folder and Setup, with real processes behind them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import panel_cases
import qt_stand_ins
import slicer
import torch
from PySide6 import QtCore
from test_environment import STAND_IN, make_wheel

from sam2unet_core.batch.formats import FORMATS
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import save_full
from sam2unet_core.phantom import write_dataset
from sam2unet_core.task import load_preset

qt_stand_ins.speak_pythonqt(__name__)

PATIENCE_MS = 600_000  # a whole environment is built, or a folder segmented


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[SimpleNamespace]:
    with panel_cases.opened_panel(tmp_path) as opened:
        yield opened


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "phantom", frames=3, seed=1, size=(64, 80))
    return tmp_path / "phantom" / "images"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "nano.safetensors"
    save_full(SAM2UNet("nano"), path, task=load_preset("polyp"))
    return path


def test_a_folder_is_segmented_and_its_report_opened(
    opened: SimpleNamespace,
    archive: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = []
    monkeypatch.setattr(opened.panel.batch, "onReport", lambda: shown.append(True))
    ui = opened.ui
    assert not ui.batchRunButton.enabled
    ui.weightsPath.currentPath = str(weights)
    ui.batchInputPath.currentPath = str(archive)
    ui.batchOutputPath.currentPath = str(tmp_path / "results")
    ui.batchRunButton.click()
    assert ui.batchCancelButton.enabled
    panel_cases.live(lambda: opened.panel.batch.batch is None, patience_ms=PATIENCE_MS)
    assert ui.batchStatusLabel.text.startswith("Done: 3 "), ui.batchLogTextEdit.plainText
    assert opened.panel.batch.report == tmp_path / "results" / "report.html"
    assert shown
    assert ui.batchReportButton.enabled
    assert len(list((tmp_path / "results").glob("*.mask.png"))) == 3


def test_the_formats_are_those_of_the_environment_and_the_ticked_ones_are_written(
    opened: SimpleNamespace, archive: Path, weights: Path, tmp_path: Path
) -> None:
    ui, panel = opened.ui, opened.panel
    assert texts(ui.batchFormatList) == ["auto: the usual formats of each input"]
    assert panel.batch.formats == "auto"
    opened.logic.events.append(("offer", panel_cases.offer()))
    panel.segment.onTimer()
    listed = texts(ui.batchFormatList)
    assert listed[1:] == [f"{each.name}: {each.help}" for each in FORMATS.values()]
    assert panel.batch.formats == "auto"
    tick(ui.batchFormatList, "auto:", False)
    assert panel.batch.formats == "auto"  # something has to be written
    tick(ui.batchFormatList, "png:", True)
    tick(ui.batchFormatList, "overlay:", True)
    assert panel.batch.formats == "png,overlay"
    opened.logic.events.append(("offer", panel_cases.offer()))  # asked again
    panel.segment.onTimer()
    assert panel.batch.formats == "png,overlay"
    ui.weightsPath.currentPath = str(weights)
    ui.batchInputPath.currentPath = str(archive)
    ui.batchOutputPath.currentPath = str(tmp_path / "results")
    ui.batchRunButton.click()
    arguments = panel.batch.batch.request.arguments()
    assert arguments[arguments.index("--format") + 1] == "png,overlay"
    ui.batchCancelButton.click()


def texts(box: Any) -> list[str]:
    return [box.item(row).text() for row in range(box.count)]


def tick(box: Any, text: str, ticked: bool) -> None:
    (item,) = [box.item(row) for row in range(box.count) if text in box.item(row).text()]
    item.setCheckState(QtCore.Qt.CheckState.Checked if ticked else QtCore.Qt.CheckState.Unchecked)


def test_a_refused_folder_says_what_to_do(opened: SimpleNamespace, tmp_path: Path) -> None:
    ui = opened.ui
    ui.batchInputPath.currentPath = str(tmp_path / "not there")
    ui.batchOutputPath.currentPath = str(tmp_path / "results")
    ui.batchRunButton.click()
    panel_cases.live(lambda: opened.panel.batch.batch is None, patience_ms=PATIENCE_MS)
    assert "no such file" in ui.batchStatusLabel.text
    assert ui.batchRunButton.enabled


def test_a_cancelled_folder_says_that_it_can_go_on(
    opened: SimpleNamespace, archive: Path, weights: Path, tmp_path: Path
) -> None:
    ui = opened.ui
    ui.weightsPath.currentPath = str(weights)
    ui.batchInputPath.currentPath = str(archive)
    ui.batchOutputPath.currentPath = str(tmp_path / "results")
    ui.batchRunButton.click()
    process = opened.panel.batch.batch._process
    ui.batchCancelButton.click()
    assert process._process.poll() is not None
    assert "run again to resume" in ui.batchStatusLabel.text
    assert ui.batchRunButton.enabled


def test_a_folder_s_warnings_and_reasons_are_counted_on_the_panel(
    opened: SimpleNamespace, tmp_path: Path
) -> None:
    batch = panel_cases.importlib.import_module("SAM2UNetLib.Batch")
    run = batch.Batch([sys.executable], batch.BatchRequest(tmp_path, tmp_path))
    lines = [
        '{"id": "a", "status": "done", "warnings": ["not_finite", "window_guessed"]}',
        '{"id": "b", "status": "done", "warnings": ["window_guessed"]}',
        '{"id": "c", "status": "failed", "reason": "unsupported_output"}',
        '{"id": "a", "status": "done", "warnings": ["window_guessed"]}',
        "",
    ]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    run._read()
    assert dict(run.state().warnings) == {"window_guessed": 2}
    panel = opened.panel.batch
    panel._showState(run.state())
    assert panel.ui.batchStatusLabel.text.splitlines() == [
        "2 done, 1 failed",
        "Warnings: 2 window guessed.",
    ]
    summary = {
        "statuses": {"done": 2, "failed": 1},
        "reasons": {"unsupported_output": 1},
        "warnings": {"window_guessed": 2, "not_finite": 1},
    }
    panel._end("finished", [summary, None])
    assert panel.ui.batchStatusLabel.text.splitlines() == [
        "Done: 2 done, 1 failed.",
        "Not done: 1 unsupported output.",
        "Warnings: 1 not finite, 2 window guessed.",
    ]
    panel._end("finished", [{"statuses": {"done": 3}}, None])
    assert panel.ui.batchStatusLabel.text == "Done: 3 done."


def test_how_far_a_folder_is_comes_from_the_manifest(tmp_path: Path) -> None:
    batch = panel_cases.importlib.import_module("SAM2UNetLib.Batch")
    (tmp_path / "in").mkdir()
    for number in range(4):
        (tmp_path / "in" / f"{number}.png").write_bytes(b"")
    out = tmp_path / "in" / "out"  # results within the archive are not counted
    out.mkdir()
    (out / "x.png").write_bytes(b"")
    request = batch.BatchRequest(tmp_path / "in", out, task="polyp", threshold=0.4, names="keep")
    assert request.arguments()[-4:] == ["polyp", "--threshold", "0.4", "--keep-names"]
    run = batch.Batch([sys.executable], request)
    run._count()
    lines = ['{"id": "a", "status": "done"}', '{"id": "b", "status": "failed"}', '{"id": "c", "sta']
    (out / "manifest.jsonl").write_text("\n".join(lines))
    run._read()
    assert dict(run.state().done) == {"done": 1, "failed": 1}
    assert run.state().total == 4
    (out / "manifest.jsonl").write_text(
        "\n".join(
            [*lines[:2], '{"id": "c", "status": "done"}', '{"id": "b", "status": "done"}', ""]
        )
    )
    run._read()
    assert dict(run.state().done) == {"done": 3}


def test_the_button_builds_the_environment_and_the_panel_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = []
    monkeypatch.setattr(
        slicer.util, "confirmOkCancelDisplay", lambda text, *_: questions.append(text) or True
    )
    monkeypatch.delenv("PIP_QUIET", raising=False)  # pip's own lines are looked for below
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    core = {"sam2unet_core/__init__.py": "", "sam2unet_core/cli/__init__.py": ""}
    make_wheel(wheels, "stand_in_torch", {"stand_in_torch.py": "WORKS = True\n"})
    make_wheel(
        wheels,
        "sam2unet",
        core | {"sam2unet_core/cli/main.py": STAND_IN},
        requires="stand_in_torch",
    )
    with panel_cases.opened_panel(tmp_path, python="") as opened:
        ui, setup = opened.ui, opened.panel.environment
        setup.base = Path(sys.executable)
        ui.wheelsPath.currentPath = str(wheels)
        panel_cases.live(lambda: ui.buildButton.enabled)
        ui.buildButton.click()
        assert "Nothing is downloaded" in questions[0]
        assert setup.builder is not None, ui.environmentStatusLabel.text
        assert ui.buildButton.text == "Cancel"
        panel_cases.live(lambda: setup.builder is None, patience_ms=PATIENCE_MS)
        assert "is ready: sam2unet 9.9" in ui.environmentStatusLabel.text
        assert ui.buildButton.text == "Set up again..."
        assert opened.logic.asked[-1][0] == "tasks"
        assert opened.logic.asked[-1][1] == setup.own.command()
        assert not ui.bannerLabel.isVisibleTo(opened.form)
        assert "Collecting" in ui.environmentLogTextEdit.plainText or (
            "Processing" in ui.environmentLogTextEdit.plainText
        )
        ui.removeButton.click()
        assert "was removed" in ui.environmentStatusLabel.text
        assert not setup.own.folder.exists()
        assert "not set up yet" in ui.bannerLabel.text


def test_an_existing_python_is_asked_whether_it_can_run(opened: SimpleNamespace) -> None:
    ui = opened.ui
    ui.checkButton.click()
    panel_cases.live(lambda: opened.panel.environment.check is None, patience_ms=PATIENCE_MS)
    assert "sam2unet 0." in ui.environmentStatusLabel.text
    ui.pythonPath.currentPath = "/no/such/python"
    ui.checkButton.click()
    assert "no such file" in ui.environmentStatusLabel.text
    assert not ui.applyButton.enabled


def test_the_weights_that_were_downloaded_are_those_of_the_command_line() -> None:
    from sam2unet_core.network.checkpoint.cache import cache_folder

    environment = panel_cases.importlib.import_module("SAM2UNetLib.Environment")
    assert environment.modelFolder() == cache_folder()
    assert environment.modelFolder({"SAM2UNET_CACHE": "/x"}) == Path("/x/weights")
