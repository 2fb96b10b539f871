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
    "network": "runtimes; ratio: speed-up over the reference",
    "agreement": "masks of trained weights; time per frame from image to mask",
    "training": "training; ratio: speed-up over the reference",
    "startup": "commands in a new process; ratio: time relative to importing PyTorch",
    "throughput": "batch runs from file to file; ratio: share of the rate of the network alone",
    "gpu": "a GPU, if there is one; seconds per frame; ratio: speed-up over the reference",
}
OWNERS = {"agreement": "network"}
IN_QUICK = ("network", "agreement", "startup")
OTHERS = """\
Other scripts:
  python benchmarks/batch_memory.py     peak memory of a batch run for videos of different lengths
  python benchmarks/seg_writing.py      writing DICOM SEG
  python benchmarks/slicer_clip.py      peak memory of a ten-minute clip in the 3D Slicer module
  python benchmarks/slicer_click.py     time from click to segmentation in the 3D Slicer module
  python benchmarks/worker_latency.py   round trip of one slice through a warm worker
  python benchmarks/startup.py          as in the table, and the slowest imports
  python benchmarks/throughput.py       as in the table, with --runtime"""


def main() -> None:
    """Run the chosen sections and print one table."""
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
    if "range_s" not in row:  # some rows have the width only
        return f"width {row['spread_s']:.3f}"
    low, high = row["range_s"]
    return f"{low:.3f}..{high:.3f}"


def _in_a_process(section: str) -> Any:
    """Measure a section in a process of its own.

    On Linux, the peak memory of a process starts at that of its parent, so the parent stays small.
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
    parser.add_argument(
        "--quick", action="store_true", help=f"only {', '.join(IN_QUICK)}, with few rounds"
    )
    parser.add_argument(
        "--only", type=_sections, help=f"sections to run, comma-separated: {','.join(SECTIONS)}"
    )
    parser.add_argument("--frames", type=Path, help="a folder of images; by default phantoms")
    parser.add_argument("--weights", type=Path, help="for agreement; by default the starter")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    return parser.parse_args()


def _sections(words: str) -> list[str]:
    names = words.split(",")
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"unknown section {unknown[0]!r}; choose from {', '.join(SECTIONS)}"
        )
    return names


if __name__ == "__main__":
    main()
