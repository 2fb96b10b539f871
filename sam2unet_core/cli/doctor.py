"""`sam2unet doctor`: what this machine has, what is missing and how to install it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from sam2unet_core.console import console, to_json

if TYPE_CHECKING:
    from sam2unet_core.environment import Finding

MARKS = {"ok": ("ok", "green"), "lacking": ("lacks", "yellow"), "broken": ("broken", "red")}


def doctor(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False
) -> None:
    """Show what this machine has, what is missing and how to install it. Works offline.

    The exit code is 0, or 2 if sam2unet cannot run on this machine.
    """
    from sam2unet_core.environment import survey

    findings = survey()
    works = all(finding.state != "broken" for finding in findings)
    if as_json:
        content = {"works": works, "findings": [asdict(finding) for finding in findings]}
        typer.echo(to_json(content))
    else:
        out = console()
        out.print(_table(findings))
        out.print("This machine can run sam2unet." if works else "sam2unet cannot run here.")
    raise typer.Exit(0 if works else 2)


def _table(findings: list[Finding]) -> Table:
    table = Table(box=box.SIMPLE, show_header=False)
    for style in ("bold", "", ""):
        table.add_column(style=style, overflow="fold")
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            table.add_section()
            table.add_row(section, "", "")
        mark, style = MARKS[finding.state]
        found = Text(finding.value)
        if finding.remedy:
            found.append(f"\n{finding.remedy}", style="italic")
        table.add_row(Text(f"  {finding.name}", style="not bold"), Text(mark, style=style), found)
    return table
