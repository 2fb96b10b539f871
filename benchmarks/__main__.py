"""All measurements in one table: `python -m benchmarks [--quick]`."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Rows = list[dict[str, Any]]

SECTIONS = {
    "network": "runtimes; ratio: times as fast as the reference",
    "agreement": "masks of trained weights, the whole way of a frame",
    "training": "training; ratio: times as fast as the reference",
    "startup": "commands in a new process; ratio: to importing PyTorch alone",
    "throughput": "the whole way of a batch run; ratio: share of the bare network's rate",
    "gpu": "a GPU, if there is one; seconds for each frame; ratio: times as fast as the reference",
}
OWNERS = {"agreement": "network"}
IN_QUICK = ("network", "agreement", "startup")
OTHERS = """\
Others, each a script of its own:
  python benchmarks/batch_memory.py     peak memory of a batch run by the length of a video
  python benchmarks/seg_writing.py      writing DICOM SEG
  python benchmarks/slicer_click.py     a click in the 3D Slicer module
  python benchmarks/worker_latency.py   the round trip of one slice through a warm worker
  python benchmarks/startup.py          as in the table, and which imports take the time
  python benchmarks/throughput.py       as in the table, with --runtime"""


def main() -> None:
    """Measure what was asked for, and print one table."""
    given = _arguments()
    if given.section:
        print(json.dumps(_measure(given.section, given)))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    machine = _in_a_process("machine")
    console.print("\n".join(machine), highlight=False)
    found: dict[str, Rows] = {}
    for name in given.only or (IN_QUICK if given.quick else SECTIONS):
        with console.status(name):
            found[name] = _in_a_process(name)
    show(found, console)
    if given.json:
        content = {"machine": machine, "quick": given.quick, "rows": found}
        given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def show(found: dict[str, Rows], console: Console) -> None:
    """Print the rows of each section as one table."""
    table = Table("what", "median s", "min..max s", "ratio", "peak MiB", "agreement, note")
    for column in table.columns[1:5]:
        column.justify = "right"
        column.no_wrap = True
    table.columns[0].min_width = 24
    for name, rows in found.items():
        table.add_row(f"[bold]{name}[/bold]", "", "", "", "", f"[bold]{SECTIONS[name]}[/bold]")
        for row in rows:
            table.add_row(
                row["what"],
                _number(row["median_s"], 3),
                _range(row),
                _number(row["ratio"], 2),
                _number(row["peak_mib"], 0),
                row["note"],
            )
        table.add_section()
    console.print(table)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _range(row: dict[str, Any]) -> str:
    if "range_s" not in row:  # some know the width alone
        return f"width {row['spread_s']:.3f}"
    low, high = row["range_s"]
    return f"{low:.3f}..{high:.3f}"


def _in_a_process(section: str) -> Any:
    """Measure a section in a process of its own.

    Peak memory of a process begins with that of its parent on Linux, so that one stays small.
    """
    words = [sys.executable, "-m", "benchmarks", *sys.argv[1:], "--section", section]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _measure(section: str, given: argparse.Namespace) -> Any:
    """Return the rows of a section, or the lines that describe the machine."""
    owner = importlib.import_module(f"benchmarks.{OWNERS.get(section, section)}")
    if section == "machine":
        return owner.describe().splitlines()
    if section == "agreement":
        return owner.agreement(given.quick, given.frames, given.weights)
    if section == "throughput":
        return owner.measure(given.quick, given.frames)
    return owner.measure(given.quick)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=OTHERS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(IN_QUICK)}; few rounds")
    parser.add_argument("--only", type=_sections, help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--frames", type=Path, help="a folder of pictures; phantoms by default")
    parser.add_argument("--weights", type=Path, help="for agreement; the starter by default")
    parser.add_argument("--json", type=Path, help="a file to write the rows to as well")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    return parser.parse_args()


def _sections(words: str) -> list[str]:
    names = words.split(",")
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]}: there are {', '.join(SECTIONS)}")
    return names


if __name__ == "__main__":
    main()
