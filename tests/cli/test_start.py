"""The command starts fast, and knows its commands."""

from __future__ import annotations

import subprocess
import sys

from typer.testing import CliRunner

from sam2unet_core.cli import app
from sam2unet_core.cli.main import COMMANDS

HEAVY = ("torch", "monai", "scipy", "matplotlib", "transformers", "pydicom")


def test_help_names_every_command() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert all(name in result.output for name in COMMANDS)
    assert "not a medical device" in " ".join(result.output.replace("│", " ").split())


def test_help_of_every_command_works() -> None:
    for name in COMMANDS:
        result = CliRunner().invoke(app, [name, "--help"])
        assert result.exit_code == 0, name


def test_command_line_starts_without_importing_torch_or_monai() -> None:
    code = f"import sys, sam2unet_core.cli.main; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stdout.strip() == "[]"


def test_listing_the_tasks_imports_neither_torch_nor_monai() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from sam2unet_core.cli import app;"
        "assert CliRunner().invoke(app, ['tasks']).exit_code == 0;"
        "print([n for n in ('torch', 'monai') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stdout.strip() == "[]"


def test_module_runs_as_the_command_and_an_expected_error_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sam2unet_core", "tasks", "plyp"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: no task is called 'plyp'; there are ")
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
