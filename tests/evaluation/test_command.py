"""`sam2unet evaluate` and the published results beside ours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sam2unet_core.cli import evaluate as command
from sam2unet_core.errors import DataError, TaskError
from sam2unet_core.evaluation import compare_with_paper, evaluate_folders
from sam2unet_core.task import Task

Folders = tuple[Path, Path]
PAPER = {
    "test_sets": {"Kvasir": 4, "CVC-300": 60},
    "metrics": ["mDice", "mIoU"],
    "results": {"Kvasir": {"mDice": 0.928}, "CVC-300": {"mDice": 0.894}},
    "source": "arXiv:2408.08870",
    "unverified": ["results.CVC-300.mDice"],
}


@pytest.fixture
def app() -> typer.Typer:
    """The command alone, as a subcommand."""
    app = typer.Typer()
    app.command("evaluate")(command.evaluate)
    app.command()(lambda: None)
    return app


def test_the_command_prints_a_table_and_writes_both_files(
    app: typer.Typer, folders: Folders, tmp_path: Path
) -> None:
    arguments = ["evaluate", *map(str, folders), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    assert "Dice, images with the class" in result.stdout
    assert "0.750" in result.stdout
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["metrics.csv", "summary.json"]


def test_json_on_stdout_is_json_and_nothing_else(app: typer.Typer, folders: Folders) -> None:
    arguments = ["evaluate", *map(str, folders), "--json", "--spacing", "1,0.2", "--seed", "7"]
    result = CliRunner().invoke(app, arguments)
    content = json.loads(result.stdout)
    assert content["distance_unit"] == "mm"
    assert content["interval"].endswith("seed 7")


def test_the_published_row_stands_beside_ours(app: typer.Typer, folders: Folders) -> None:
    arguments = ["evaluate", *map(str, folders), "--protocol", "paper", "--compare-paper", "polyp"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    assert "0.928" in result.stdout
    assert "4 images, but the published test set Kvasir has 100: not the published split" in (
        result.stdout
    )
    as_json = CliRunner().invoke(app, [*arguments, "--json"])
    comparison = json.loads(as_json.stdout)["comparison"]
    assert comparison["published"] == {"Kvasir": {"mDice": 0.928}}
    assert comparison["ours"]["mDice"] > 0


def test_a_comparison_tells_whether_names_and_counts_are_the_published_ones(
    folders: Folders, task: Task
) -> None:
    pred, gt = folders
    found = evaluate_folders(pred, gt, task=task, protocol="paper")
    published = replace(task, paper=PAPER)
    same = compare_with_paper(found, published, gt=gt)
    assert same.test_set == "Kvasir"
    assert same.notes == (
        "4 images, as in the published test set Kvasir; whether they are the same ones is not "
        "checked",
    )
    other = compare_with_paper(found, published, gt=gt.parent / "TestDataset" / "CVC-300")
    assert other.test_set == "CVC-300"
    assert "4 images, but the published test set CVC-300 has 60" in other.notes[0]
    assert other.unverified == {"CVC-300.mDice"}
    masks = compare_with_paper(found, published, gt=gt.parent / "CVC-300" / "masks")
    assert masks.test_set == "CVC-300"
    unknown = compare_with_paper(found, published, gt=Path("our_hospital"))
    assert unknown.test_set is None
    assert "the name of a published test set (Kvasir 4, CVC-300 60)" in unknown.notes[0]
    assert set(unknown.published) == {"Kvasir", "CVC-300"}
    assert unknown.table().row_count == 3


def test_clinical_numbers_are_not_passed_off_as_the_papers(folders: Folders, task: Task) -> None:
    found = evaluate_folders(*folders, task=task)
    comparison = compare_with_paper(found, replace(task, paper=PAPER), gt=folders[1])
    assert comparison.ours == {"mDice": None, "mIoU": None}
    assert "evaluate probability maps with --protocol paper" in comparison.notes[1]
    with pytest.raises(TaskError, match="not one of the paper's"):
        compare_with_paper(found, task, gt=folders[1])


def test_one_section_of_a_data_list_is_measured(
    app: typer.Typer, folders: Folders, tmp_path: Path
) -> None:
    _, gt = folders
    names = ("p1/a", "p1/b", "p2/c", "p2/d")
    for name in names:
        image = gt / "images" / f"{name}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(b"never opened")
    entries = [{"image": f"images/{n}.jpg", "label": f"masks/{n}.png"} for n in names]
    datalist = tmp_path / "datalist.json"
    datalist.write_text(json.dumps({"training": entries[:1], "testing": entries[1:]}))
    arguments = ["evaluate", *map(str, folders), "--json", "--datalist", str(datalist)]
    held_out = json.loads(CliRunner().invoke(app, arguments).stdout)
    dice = held_out["classes"]["polyp"]["scores"]["dice"]
    assert (held_out["images"], dice["mean"]) == (3, pytest.approx(2 / 3))
    result = CliRunner().invoke(app, [*arguments, "--section", "training"])
    trained_on = json.loads(result.stdout)
    dice = trained_on["classes"]["polyp"]["scores"]["dice"]
    assert (trained_on["images"], dice["mean"]) == (1, 0.5)


def test_a_section_of_no_data_list_is_refused(app: typer.Typer, folders: Folders) -> None:
    arguments = ["evaluate", *map(str, folders), "--section", "testing"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, DataError)
    assert "--section testing: no data list" in str(result.exception)


@pytest.mark.parametrize("spacing", ["1", "1,2,3", "a,b", "0,1"])
def test_a_spacing_that_is_none_is_refused(
    app: typer.Typer, folders: Folders, spacing: str
) -> None:
    arguments = ["evaluate", *map(str, folders), "--spacing", spacing]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, DataError)
    assert f"--spacing {spacing}: expected" in str(result.exception)
