"""`sam2unet tasks`."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from sam2unet_core.cli import app
from sam2unet_core.errors import TaskError
from sam2unet_core.task import Task, presets


def test_table_names_every_task() -> None:
    result = CliRunner().invoke(app, ["tasks"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert all(name in result.stdout for name in presets())
    assert "…" not in result.stdout  # nothing is cut off at 80 columns
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    assert re.search(r" Dice 0\.\d\d *$", result.stdout, re.MULTILINE)


def test_one_task_is_shown_with_codes_sources_and_the_papers_numbers() -> None:
    result = CliRunner().invoke(app, ["tasks", "polyp"], env={"COLUMNS": "100"})
    assert result.exit_code == 0
    for text in (
        "Polyp of colon (SCT 68496003)",
        "Colon (SCT 71854001)",
        "352x352",
        "ES, XC, OT, GM",
        "20 epochs, batch 12, lr 0.001",
        "Kvasir-SEG 900, CVC-ClinicDB 550",
        "mDice 0.928",
        "not verified",
    ):
        assert text in result.stdout


def test_task_that_is_not_the_papers_says_so() -> None:
    result = CliRunner().invoke(app, ["tasks", "skin_lesion"])
    assert "not one of the paper's tasks" in result.stdout


def test_json_of_one_task_is_its_file() -> None:
    result = CliRunner().invoke(app, ["tasks", "mirror", "--json"])
    assert Task.from_dict(json.loads(result.stdout)) == Task.load(presets()["mirror"])


def test_json_of_all_tasks_holds_each_once() -> None:
    result = CliRunner().invoke(app, ["tasks", "--json"])
    assert [item["name"] for item in json.loads(result.stdout)] == list(presets())


def test_unknown_task_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(TaskError, match="choose from breast_ultrasound, camouflaged"):
        CliRunner().invoke(app, ["tasks", "plyp"], catch_exceptions=False)
