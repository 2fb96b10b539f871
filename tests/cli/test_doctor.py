"""`sam2unet doctor`: every lack has a remedy; only a core that cannot run is a failure."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from typer.testing import CliRunner

from sam2unet_core import __version__, environment
from sam2unet_core.cli import app
from sam2unet_core.environment import Finding, survey
from sam2unet_core.errors import TaskError


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Refuse every connection and name lookup; returns those tried."""
    tried: list[str] = []

    def refuse(*args: object, **_: object) -> None:
        tried.append(str(args))
        raise OSError("offline")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tried


def test_survey_covers_what_was_promised(offline: list[str]) -> None:
    sections = {finding.section for finding in survey()}
    assert sections == {
        "Versions",
        "Devices",
        "Capacity",
        "Runtimes",
        "DICOM decoders",
        "Extras",
        "Bundle",
        "Weights",
    }
    assert not offline


def test_every_lack_has_a_remedy_and_nothing_else_has() -> None:
    for finding in survey():
        assert bool(finding.remedy) == (finding.state != "ok"), finding


def test_versions_are_those_of_the_packages_imported() -> None:
    found = _by_name("Versions")
    assert found["sam2unet"].value == __version__
    assert found["torch"].value == torch.__version__
    assert found["numpy"].value == np.__version__
    assert found["pydicom"].value == pydicom.__version__


def test_cpu_count_is_what_this_process_may_use() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert _by_name("Devices")["CPU"].value.startswith(f"{cores} cores")


def test_decoders_are_told_by_what_they_decode(monkeypatch) -> None:
    found = _by_name("DICOM decoders")
    assert {"JPEG", "JPEG lossless", "JPEG-LS", "JPEG 2000", "HTJ2K", "JPEG XL"} == set(found)
    assert {each.value for each in found.values()} == {"decodes"}
    import imagecodecs

    def broken(_stream: bytes) -> None:
        raise RuntimeError

    monkeypatch.setattr(imagecodecs, "jpegls_decode", broken)
    found = _by_name("DICOM decoders")
    assert (found["JPEG-LS"].value, found["JPEG-LS"].state) == ("does not decode", "lacking")
    assert found["JPEG 2000"].value == "decodes"


def test_extras_come_from_the_packages_own_metadata() -> None:
    found = _by_name("Extras")
    assert set(found) == {"video", "openvino", "onnx", "send", "cluster", "track"}
    assert found["onnx"].state == "ok"  # the test extra brings it
    assert "onnxruntime" in found["onnx"].value


def test_missing_package_makes_its_extra_a_lack_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = environment._installed
    monkeypatch.setattr(environment, "_installed", lambda n: None if n == "av" else real(n))
    finding = _by_name("Extras")["video"]
    assert (finding.state, finding.value) == ("lacking", "av missing")
    assert finding.remedy == 'pip install "sam2unet[video]"'


def test_little_memory_is_a_lack_with_a_smaller_network_as_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environment, "memory_bytes", lambda: 2 * 2**30)
    finding = _by_name("Capacity")["memory"]
    assert (finding.value, finding.state) == ("2.0 GiB", "lacking")
    assert "starter" in finding.remedy


def test_weights_in_the_cache_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAM2UNET_CACHE", str(tmp_path))
    assert [item.state for item in survey() if item.section == "Weights"] == ["lacking"]
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "sam2_hiera_tiny.pt").write_bytes(b"x")
    (finding,) = (item for item in survey() if item.section == "Weights")
    assert (finding.state, "sam2_hiera_tiny" in finding.value) == ("ok", True)


def test_json_is_what_the_table_says_and_the_exit_code_is_zero(offline: list[str]) -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0
    content = json.loads(result.stdout)
    assert content["works"] is True
    assert {"section", "name", "value", "state", "remedy"} == set(content["findings"][0])
    assert not offline


def test_table_fits_a_terminal_of_80_columns() -> None:
    result = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    assert "This machine can run sam2unet." in result.stdout


def test_machine_without_the_bundle_cannot_run_and_the_exit_code_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> Path:
        raise TaskError("the bundle is missing; install sam2unet again")

    monkeypatch.setattr(environment, "installed_bundle", missing)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 2
    assert "sam2unet cannot run here." in result.stdout


def test_machine_where_torch_does_not_load_is_told_so_and_the_rest_is_still_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 2
    content = json.loads(result.stdout)
    assert content["works"] is False
    broken = [item for item in content["findings"] if item["state"] == "broken"]
    assert [item["name"] for item in broken] == ["torch"]
    assert "does not load" in broken[0]["value"]
    assert {"Bundle", "Extras"} <= {item["section"] for item in content["findings"]}


def test_memory_is_at_most_what_the_operating_system_reports() -> None:
    if not hasattr(os, "sysconf"):
        pytest.skip("needs Linux or macOS")
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory = environment.memory_bytes()
    assert memory is not None
    assert 0 < memory <= total


def _by_name(section: str) -> dict[str, Finding]:
    return {finding.name: finding for finding in survey() if finding.section == section}
