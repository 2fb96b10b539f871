"""CI: a skipped test is a failed one, and what its files name is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from sam2unet_core.cli.main import COMMANDS

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


def test_scripts_that_workflows_and_scripts_run_are_there_and_executable(repository: Path) -> None:
    files = [*(repository / ".github/workflows").iterdir(), *(repository / ".ci").iterdir()]
    named = {name for file in files for name in re.findall(r"\.ci/\w+", file.read_text("utf-8"))}
    assert {".ci/run", ".ci/newest", ".ci/release", ".ci/tools"} <= named
    for name in named:
        assert (repository / name).stat().st_mode & 0o100, name


def test_every_ci_script_is_in_contributing_or_runs_within_another(repository: Path) -> None:
    pages = [repository / name for name in ("CONTRIBUTING.md", "docs/releasing.md", ".ci/run")]
    text = "".join(page.read_text("utf-8") for page in pages)
    for script in (repository / ".ci").iterdir():
        assert f".ci/{script.name}" in text


def test_folders_and_files_of_the_newest_run_are_there(repository: Path) -> None:
    script = (repository / ".ci" / "newest").read_text("utf-8")
    command = script.partition("-m pytest ")[2].partition("\n\n")[0].replace("\\\n", "")
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    )
    paths = done.stdout.split()
    assert len(paths) > 10
    assert [path for path in paths if not (repository / path).exists()] == []


def test_ci_runs_every_python_that_the_package_supports(repository: Path) -> None:
    job = _yaml(repository / ".github/workflows/ci.yml")["jobs"]["run"]
    classifiers = _project(repository)["classifiers"]
    supported = [name.rpartition(" ")[2] for name in classifiers if re.search(r":: 3\.\d", name)]
    assert job["strategy"]["matrix"]["python"] == supported


def test_hooks_run_programs_that_the_extra_dev_installs(repository: Path) -> None:
    hooks = _hooks(repository)
    extras = _project(repository)["optional-dependencies"]
    installed = {Requirement(line).name for line in extras["dev"] + extras["test"]}
    owners = {"check-yaml": "pre-commit-hooks", "check-json": "pre-commit-hooks"}
    owners |= {"lint-imports": "import-linter"}
    for hook in hooks:
        program, *words = hook["entry"].split()
        scripts = [word for word in words if word.endswith((".py", ".json"))]
        assert program == "python" or owners.get(program, program) in installed
        assert [script for script in scripts if not (repository / script).exists()] == []


def test_hooks_and_ci_run_the_same_checks(repository: Path) -> None:
    entries = [hook["entry"] for hook in _hooks(repository)]
    script = (repository / ".ci" / "run").read_text("utf-8").replace('"$bin/', "").replace('"', "")
    for check in ("ruff check", "ruff format", "mypy", "lint-imports"):
        assert any(entry.startswith(check) for entry in entries), check
        assert re.search(rf"^{check}", script, re.MULTILINE), check


def test_every_hook_applies_to_some_file(repository: Path) -> None:
    names = [
        path.relative_to(repository).as_posix()
        for folder in ("docs", "sam2unet_core", "monai_bundle/configs")
        for path in (repository / folder).rglob("*")
    ]
    for hook in _hooks(repository):
        if "files" in hook:
            assert any(re.search(hook["files"], name) for name in [*names, "pyproject.toml"])


def test_bug_form_requires_version_and_doctor_and_no_patient_data(repository: Path) -> None:
    form = _yaml(repository / ".github/ISSUE_TEMPLATE/bug.yml")
    fields = {item["id"]: item for item in form["body"] if "id" in item}
    assert fields["version"]["validations"]["required"]
    assert fields["doctor"]["validations"]["required"]
    assert fields["no-patient-data"]["attributes"]["options"][0]["required"]
    assert "doctor" in COMMANDS
    assert "sam2unet doctor" in fields["doctor"]["attributes"]["label"]


def test_coverage_follows_subprocesses(tmp_path: Path, repository: Path) -> None:
    """The command line and the worker run in processes of their own."""
    test = tmp_path / "test_process.py"
    test.write_text(
        "import subprocess, sys\n"
        "def test_process():\n"
        "    code = 'from sam2unet_core.geometry import Geometry'\n"
        "    subprocess.run([sys.executable, '-c', code], check=True)\n"
    )
    options = ["--cov=sam2unet_core.geometry", "--cov-report=term"]
    options += [f"--cov-config={repository / 'pyproject.toml'}"]
    output = _run(tmp_path, "", *options)
    (line,) = [line for line in output.splitlines() if line.startswith("TOTAL")]
    statements, missed, *_ = (int(number) for number in re.findall(r"\d+", line))
    assert 0 < missed < statements


def _hooks(repository: Path) -> list[dict[str, Any]]:
    (local,) = _yaml(repository / ".pre-commit-config.yaml")["repos"]
    return local["hooks"]


def _project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def _run(folder: Path, ci: str, *options: str) -> str:
    environment = {**os.environ, "CI": ci}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", str(folder)]
    done = subprocess.run(
        [*command, "--rootdir", str(folder), *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
        timeout=600,
    )
    return done.stdout
