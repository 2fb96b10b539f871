"""In CI a skipped test is a failed one, unless what it lacks cannot be installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import pytest

def test_needs_a_tool():
    pytest.skip("no dciodvfy on the path")

def test_needs_data():
    pytest.skip("shared data not present")

def test_needs_a_gpu():
    pytest.skip("needs a GPU")

@pytest.mark.xfail(reason="known")
def test_known_bug():
    assert False
"""


@pytest.mark.parametrize(("ci", "summary"), [("", "3 skipped"), ("true", "1 failed, 2 skipped")])
def test_skip_for_a_missing_tool_fails_in_ci_only(
    tmp_path: Path, repository: Path, ci: str, summary: str
) -> None:
    conftest = (repository / "tests" / "conftest.py").read_text(encoding="utf-8")
    (tmp_path / "conftest.py").write_text(conftest, encoding="utf-8")
    (tmp_path / "test_suite.py").write_text(SUITE, encoding="utf-8")
    output = _run(tmp_path, ci)
    assert summary in output
    assert "1 xfailed" in output


def test_module_skipped_as_a_whole_for_a_missing_package_fails_in_ci(
    tmp_path: Path, repository: Path
) -> None:
    conftest = (repository / "tests" / "conftest.py").read_text(encoding="utf-8")
    (tmp_path / "conftest.py").write_text(conftest, encoding="utf-8")
    suite = "import pytest\npytest.importorskip('no_such_package')\n"
    (tmp_path / "test_suite.py").write_text(suite, encoding="utf-8")
    assert "skipped in CI" in _run(tmp_path, "true")


def _run(folder: Path, ci: str) -> str:
    environment = {**os.environ, "CI": ci}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", str(folder)]
    done = subprocess.run(
        [*command, "--rootdir", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
        timeout=600,
    )
    return done.stdout
