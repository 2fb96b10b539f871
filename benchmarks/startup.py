"""How long a command takes in a new process: `python benchmarks/startup.py`.

The commands are segmenting one image with the bundle's starter, the short commands, and a worker up
to its first answer; importing PyTorch alone is the baseline. They take turns, so that all are timed
under the same load. Below the table are the slowest imports of the segmenting process.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam2unet_core import protocol

COMMAND = (sys.executable, "-m", "sam2unet_core.cli")
FLOOR = "import torch only"
LIMIT_S = 2.5
"""Limit for one image with a small network on two cores."""
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")


@dataclass
class Process:
    """A command and the times of its runs.

    Attributes:
        words: the command.
        first_line: a line to send; the time is that until the answer, and the process then ends.
    """

    words: tuple[str, ...]
    first_line: bytes = b""
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_mib: float = 0.0

    def run(self) -> None:
        """Run it once.

        Raises:
            SystemExit: it failed.
        """
        started = time.perf_counter()
        pipe = subprocess.PIPE if self.first_line else subprocess.DEVNULL
        process = subprocess.Popen(
            self.words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0
        )
        wall = self._first_answer(process, started) if self.first_line else 0.0
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.wall_s.append(wall or time.perf_counter() - started)
        self.cpu_s.append(used.ru_utime + used.ru_stime)
        self.peak_mib = max(self.peak_mib, used.ru_maxrss / 1024)
        if process.returncode:
            raise SystemExit(f"{' '.join(self.words)}: exit code {process.returncode}")

    def _first_answer(self, process: subprocess.Popen[bytes], started: float) -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin as requests, process.stdout as answers:
            requests.write(self.first_line)
            answers.readline()
            wall = time.perf_counter() - started
            requests.write(protocol.encode(protocol.request(2, "shutdown")))
            answers.read()
        return wall


def measure(quick: bool) -> list[dict[str, Any]]:
    """Return a row for each command; `ratio` is its time relative to importing PyTorch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes = _processes(folder)
        for _ in range(3 if quick else 9):
            for each in processes.values():
                each.run()
        modules = len(imports(processes["segment one image"].words))
    floor = statistics.median(processes[FLOOR].wall_s)
    notes = {"segment one image": f"; {modules} modules; at most {LIMIT_S} s"}
    return [
        {
            "what": what,
            "median_s": statistics.median(each.wall_s),
            "spread_s": max(each.wall_s) - min(each.wall_s),
            "ratio": statistics.median(each.wall_s) / floor,
            "peak_mib": each.peak_mib,
            "note": f"CPU {statistics.median(each.cpu_s):.2f} s{notes.get(what, '')}",
        }
        for what, each in processes.items()
    ]


def imports(words: tuple[str, ...]) -> dict[str, float]:
    """Return the milliseconds of each module's own import in a command."""
    python, *rest = words
    done = subprocess.run(
        [python, "-X", "importtime", *rest], capture_output=True, text=True, check=True
    )
    return {name: int(own) / 1000 for own, name in _IMPORT.findall(done.stderr)}


def _processes(folder: Path) -> dict[str, Process]:
    picture = folder / "one.png"
    across = np.linspace(0, 255, 622, dtype=np.uint8)
    Image.fromarray(np.tile(across[None, :, None], (529, 1, 3))).save(picture)
    exchange = folder / "exchange"
    exchange.mkdir(mode=0o700)
    segment = ("segment", str(picture), "-o", str(folder / "out"), "--redo", "--quiet")
    hello = protocol.encode(protocol.request(1, "hello"))
    return {
        FLOOR: Process((sys.executable, "-c", "import torch")),
        "segment one image": Process((*COMMAND, *segment)),
        "--help": Process((*COMMAND, "--help")),
        "tasks": Process((*COMMAND, "tasks")),
        "doctor": Process((*COMMAND, "doctor")),
        "worker, until its first answer": Process(
            (*COMMAND, "worker", "--exchange", str(exchange)), hello
        ),
    }


def _show_imports(folder: Path) -> None:
    found = imports(_processes(folder)["segment one image"].words)
    packages: Counter[str] = Counter()
    for name, own in found.items():
        packages[name.partition(".")[0]] += own  # type: ignore[assignment]
    print(f"\n{len(found)} modules, {sum(found.values()):.0f} ms; the slowest packages, in ms:")
    for name, own in packages.most_common(15):
        print(f"{own:8.1f}  {name}")


def main() -> None:
    """Measure, and print a table and the slowest imports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three runs each instead of nine")
    given = parser.parse_args()
    print(f"{'':30}{'median s':>10}{'spread s':>10}{'ratio':>8}{'peak MiB':>10}")
    for row in measure(given.quick):
        print(
            f"{row['what']:30}{row['median_s']:10.2f}{row['spread_s']:10.2f}{row['ratio']:8.2f}"
            f"{row['peak_mib']:10.0f}  {row['note']}"
        )
    with tempfile.TemporaryDirectory() as name:
        _show_imports(Path(name))


if __name__ == "__main__":
    main()
