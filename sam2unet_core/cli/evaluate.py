"""`sam2unet evaluate`: compares predictions with reference masks."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from sam2unet_core.console import console, to_json
from sam2unet_core.errors import DataError
from sam2unet_core.task import Task, installed_bundle, load_preset

if TYPE_CHECKING:
    from sam2unet_core.evaluation import Comparison, Evaluation


class Protocol(StrEnum):
    """The evaluation protocols."""

    clinical = "clinical"
    paper = "paper"


def evaluate(  # noqa: PLR0913 - the options of the command
    pred: Annotated[Path, typer.Argument(help="Folder of masks or probability maps.")],
    gt: Annotated[Path, typer.Argument(help="Dataset with masks/, or folder of masks.")],
    *,
    protocol: Annotated[
        Protocol, typer.Option(help="clinical measures masks, paper measures probability maps.")
    ] = Protocol.clinical,
    compare_paper: Annotated[
        str | None, typer.Option(metavar="TASK", help="Also print the paper's results.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Task by name, or a task.json; `sam2unet tasks` lists them.")
    ] = None,
    datalist: Annotated[
        Path | None, typer.Option(help="MONAI data list (JSON): evaluate one section of it.")
    ] = None,
    section: Annotated[
        str | None, typer.Option(help="Section of the data list, testing by default.")
    ] = None,
    groups: Annotated[
        Path | None, typer.Option(help="CSV with the columns name and group (patient, sequence).")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="For probability maps; the task's by default.")
    ] = None,
    spacing: Annotated[
        str | None, typer.Option(metavar="ROW,COL", help="Pixel pitch in mm, for distances.")
    ] = None,
    lesion_iou: Annotated[
        float, typer.Option(help="IoU from which a lesion counts as detected.")
    ] = 0.5,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for metrics.csv, summary.json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
) -> None:
    """Compare predictions with reference masks, image by image."""
    from sam2unet_core.evaluation import Options, compare_with_paper

    if not 0 < lesion_iou <= 1:
        raise DataError(f"--lesion-iou {lesion_iou:g}: expected a number above 0 and up to 1")
    measure = _measurement(pred, gt, datalist=datalist, section=section, groups=groups)
    options = Options(
        threshold=threshold,
        spacing_mm=_spacing(spacing),
        lesion_iou=lesion_iou,
        seed=seed,
    )
    with Progress(console=console(stderr=True), transient=True) as bar:
        job = bar.add_task("measuring", total=None)
        found = measure(
            task=_task(task or compare_paper),
            protocol=protocol.value,
            options=options,
            progress=lambda done, total: bar.update(job, completed=done, total=total),
        )
    comparison = None
    if compare_paper:
        comparison = compare_with_paper(found, load_preset(compare_paper), gt=gt)
    files = found.write(output) if output is not None else []
    if as_json:
        content = found.to_dict()
        if comparison is not None:
            content["comparison"] = comparison.to_dict()
        typer.echo(to_json(content))
        return
    _show(found, comparison)
    for file in files:
        typer.echo(f"wrote {file}")


def _measurement(
    pred: Path, gt: Path, *, datalist: Path | None, section: str | None, groups: Path | None
) -> Callable[..., Evaluation]:
    """Return the function that evaluates all of `gt`, or one section of a data list."""
    from sam2unet_core.data import read_dataset
    from sam2unet_core.evaluation import evaluate_folders, evaluate_samples

    if datalist is not None:
        samples = read_dataset(gt, datalist=datalist, section=section or "testing", groups=groups)
        return partial(evaluate_samples, pred, samples)
    if section is not None:
        raise DataError(f"--section {section}: no data list; give one with --datalist")
    return partial(evaluate_folders, pred, gt, groups=groups)


def _show(found: Evaluation, comparison: Comparison | None) -> None:
    out = console()
    out.print(found.table())
    notes = list(found.notes)
    if comparison is not None:
        out.print(comparison.table())
        notes += comparison.notes
        shown = {f"{s}.{m}" for s, values in comparison.published.items() for m in values}
        if comparison.unverified & shown:
            notes.append("* not checked against the paper")
    for note in notes:
        out.print(f"Note: {note}", highlight=False, soft_wrap=True)


def _task(name: str | None) -> Task:
    if name is None:
        return Task.load(installed_bundle() / "configs" / "task.json")
    return Task.load(name) if name.endswith(".json") else load_preset(name)


def _spacing(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        row, column = (float(each) for each in text.split(","))
    except ValueError as error:
        raise DataError(f"--spacing {text}: expected ROW,COL in mm, such as 0.1,0.1") from error
    if not (row > 0 and column > 0):
        raise DataError(f"--spacing {text}: expected two lengths above 0, in mm")
    return row, column
