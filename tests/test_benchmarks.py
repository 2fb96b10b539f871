"""The benchmarks can be called and printed; how long things take is not tested."""

from __future__ import annotations

import functools
import gc
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console


@pytest.fixture(autouse=True)
def _importable(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(repository)


def test_help_names_every_script_there_is(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=repository,
        timeout=600,
    )
    for path in (repository / "benchmarks").glob("*.py"):
        if "def main" in path.read_text(encoding="utf-8") and path.stem != "__main__":
            assert path.name in done.stdout
    assert "--quick" in done.stdout


def test_an_unknown_section_is_refused(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "network,nothing"],
        capture_output=True,
        text=True,
        check=False,
        cwd=repository,
        timeout=600,
    )
    assert done.returncode == 2
    assert "unknown section 'nothing'; choose from network, agreement" in done.stderr


def test_the_table_shows_every_number_of_a_row() -> None:
    from benchmarks.__main__ import show

    row = {
        "what": "large, fast",
        "median_s": 0.25,
        "spread_s": 0.5,
        "range_s": [0.125, 0.625],
        "ratio": 4.4,
        "peak_mib": 812.4,
        "note": "as exact",
    }
    without = {**row, "what": "doctor", "ratio": None, "peak_mib": None}
    del without["range_s"]
    output = io.StringIO()
    show({"network": [row], "startup": [without]}, Console(file=output, width=160))
    lines = output.getvalue().splitlines()
    (fast,) = [line for line in lines if "large, fast" in line]
    for text in ("0.250", "0.125..0.625", "4.40", "812", "as exact"):
        assert text in fast
    (doctor,) = [line for line in lines if "doctor" in line]
    assert "width 0.500" in doctor


def test_masks_are_compared_frame_by_frame() -> None:
    """Dice by hand: equal 1, both empty 1, half of one 2 * 1 / (1 + 2), one empty 0."""
    from benchmarks.network import compare

    exact = [np.array([[1, 1]]), np.array([[0, 0]]), np.array([[1, 1]]), np.array([[1, 0]])]
    masks = [np.array([[1, 1]]), np.array([[0, 0]]), np.array([[0, 1]]), np.array([[0, 0]])]
    found = compare(masks, exact)
    assert f"mean {(1 + 1 + 2 / 3 + 0) / 4:.4f}" in found
    assert "differs in 1 of 4" in found


def test_courses_of_the_loss_are_compared_smoothed() -> None:
    """One loss a hundredth above the other, both falling from 2 to 1 over ten epochs of 8 steps."""
    from benchmarks.training import compare

    reference = [2.0] * 8 + [1.5] * 8 + [1.0] * 8
    found = compare([1.01 * each for each in reference], reference)
    assert "within 1.00 %" in found
    assert "falls by 50 % (reference 50 %)" in found


def test_the_network_is_measured_by_every_runtime_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The smallest network, so that it takes seconds; the numbers themselves are the machine's."""
    from benchmarks import network
    from benchmarks.network import measure

    in_a_process = network._peak

    def peak(name: str, file: Path) -> float:  # one in a process of its own shows that they start
        return in_a_process(name, file) if name == "reference" else network._case(name, file)

    monkeypatch.setattr(network, "_peak", peak)
    monkeypatch.setattr(network, "matrix_peak", functools.partial(network.matrix_peak, rounds=1))
    rows = {row["what"]: row for row in measure(quick=True, sizes=("nano",))}
    assert rows["nano, reference"]["ratio"] == 1
    assert "probability within 0.0e+00 of exact" in rows["nano, exact"]["note"]
    for name in rows.keys() & {"nano, reference", "nano, exact", "nano, fast"}:
        assert rows[name]["peak_mib"] > 50
        assert "% of the peak" in rows[name]["note"]


def test_what_a_gpu_is_asked_can_be_asked_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu

    monkeypatch.setattr(gpu, "SECONDS", 0.001)
    monkeypatch.setattr(gpu, "MOST_AT_ONCE", 2)
    monkeypatch.setattr(gpu, "IMAGE", (64, 64))
    monkeypatch.setattr(gpu, "low_precision", lambda _: torch.float32)
    gc.freeze()  # it collects garbage before each batch, and the suite has a lot in memory
    rows = gpu.measure(quick=False, device=torch.device("cpu"), sizes=("nano",))
    gc.unfreeze()
    names = [row["what"] for row in rows]
    for way in ("reference", "exact", "fast"):
        assert f"nano, {way}, batch 1" in names
    (first, *_) = [row for row in rows if row["what"] == "nano, reference, batch 1"]
    assert first["ratio"] == 1
    assert first["note"].startswith(f"1: {1 / first['median_s']:.1f}/s")
    trained = [row for row in rows if row["what"].startswith("training, nano")]
    assert len(trained) == 3
    for row in rows[4:]:
        (batch,) = re.findall("batch ([12])$", row["what"])
        assert f"{batch}: {1 / row['median_s']:.1f}/s" in row["note"]


def test_without_a_gpu_the_table_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import gpu

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.measure(quick=True) == []
    assert "no GPU" in capsys.readouterr().err
