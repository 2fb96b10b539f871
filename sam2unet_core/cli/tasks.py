"""`sam2unet tasks`: lists the bundle's tasks, or shows one of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from sam2unet_core.console import console, to_json

if TYPE_CHECKING:
    from sam2unet_core.task import Code, Task


def tasks(
    name: Annotated[str | None, typer.Argument(help="Show this task in full.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the task files.")] = False,
) -> None:
    """List the bundle's tasks, or show one of them in full."""
    from sam2unet_core.task import presets

    chosen = [_find(name)] if name else [_find(known) for known in presets()]
    if as_json:
        contents = [task.to_dict() for task in chosen]
        typer.echo(to_json(contents[0] if name else contents))
        return
    console().print(_details(chosen[0]) if name else _overview(chosen))


def _find(name: str) -> Task:
    """Return a built-in task; the bundle's own one has its weights and metrics."""
    from sam2unet_core.task import Task, installed_bundle, load_preset

    task = load_preset(name)
    own = Task.load(installed_bundle() / "configs" / "task.json")
    return task if own.name != name else replace(task, weights=own.weights, metrics=own.metrics)


def _overview(chosen: list[Task]) -> Table:
    caption = "sam2unet tasks NAME shows one in full"
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, caption=caption)
    table.add_column("Task", min_width=19)
    table.add_column("Classes", max_width=11)
    for column in ("Size", "DICOM", "Paper", "Weights"):
        table.add_column(column, no_wrap=column != "DICOM")
    for task in chosen:
        table.add_row(
            Text.assemble((task.name, "bold"), f"\n{task.title}"),
            ", ".join(item.label for item in task.classes),
            _size(task),
            ", ".join(task.accepts.modalities) or "any",
            _training(task.paper).replace(", ", "\n"),
            _weights(task),
        )
    return table


def _details(task: Task) -> Table:
    title = f"{task.title} ({task.name} {task.version})"
    table = Table(title=title, box=box.SIMPLE, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for item in task.classes:
        table.add_row(f"Class {item.value}", f"{item.label} ({item.name}), colour {item.rgb}")
        table.add_row("  category", _code(item.category))
        table.add_row("  type", _code(item.type))
        table.add_row("  region", _code(item.region))
    table.add_row("Image size", f"{_size(task)}, height x width")
    table.add_row("Activation", f"{task.activation}, threshold {task.threshold}")
    table.add_row("Modalities", ", ".join(task.accepts.modalities) or "any")
    table.add_row("SOP classes", ", ".join(task.accepts.sop_classes) or "any")
    table.add_row("Photometric", ", ".join(task.accepts.photometric) or "any")
    table.add_row("Weights", _weights(task))
    for label, text in _paper_rows(task.paper):
        table.add_row(label, text)
    return table


def _paper_rows(paper: dict[str, Any]) -> list[tuple[str, str]]:
    if not paper:
        return [("Paper", "not one of the paper's tasks")]
    rows = [("Paper", f"{paper['source']}: {_training(paper)}")]
    rows.append(("  trained on", _counts(paper["train_sets"])))
    rows.append(("  tested on", _counts(paper["test_sets"])))
    for name, values in paper["results"].items():
        rows.append((f"  {name}", ", ".join(f"{key} {value:.3f}" for key, value in values.items())))
    if paper["unverified"]:
        rows.append(("  not verified", ", ".join(paper["unverified"])))
    return rows


def _training(paper: dict[str, Any]) -> str:
    if not paper:
        return "-"
    training = paper["training"]
    return "{epochs} epochs, batch {batch_size}, lr {learning_rate:g}".format(**training)


def _counts(sets: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sets.items())


def _size(task: Task) -> str:
    return f"{task.image_size[0]}x{task.image_size[1]}"


def _code(code: Code | None) -> str:
    return f"{code[2]} ({code[0]} {code[1]})" if code else "varies"


def _weights(task: Task) -> str:
    from sam2unet_core.task import installed_bundle

    if task.weights is None:
        return "none"
    if not (installed_bundle() / task.weights.file).is_file():
        return f"{task.weights.variant} (missing)"
    dice = [v for k, v in task.metrics.items() if k.endswith("_dice")]
    return task.weights.variant + (f"\nDice {sum(dice) / len(dice):.2f}" if dice else "")
