"""Runs `sam2unet segment` over a folder in the background and reports its progress.

Standard library only. How far it is comes from the manifest, of which a line is written for each
input file; how many files there are is counted meanwhile, so the time left is an estimate.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .BackgroundProcess import BackgroundProcess, cleanEnvironment

FAILED, REFUSED = 3, 4
"""Exit codes of `sam2unet segment`, as its documentation says."""


@dataclass(frozen=True)
class BatchRequest:
    """What to segment, and how.

    Attributes:
        source: file or folder.
        output: folder of the results.
        formats: as `--format`.
        task: name or file; None is the bundle's.
        bundle: folder of another bundle, or None.
        weights: weights file, or None for the task's.
        device: as `--device`.
        threshold: probability, or None for the task's.
        names: "auto", "keep" or "pseudonymize".
        force: run on sources the task is not made for.
    """

    source: Path
    output: Path
    formats: str = "auto"
    task: str | None = None
    bundle: str | None = None
    weights: str | None = None
    device: str = "auto"
    threshold: float | None = None
    names: str = "auto"
    force: bool = False

    def arguments(self) -> list[str]:
        """Return the arguments of `sam2unet`."""
        words = ["segment", str(self.source), "-o", str(self.output), "--json"]
        words += ["--format", self.formats, "--device", self.device]
        for option, value in (
            ("--task", self.task),
            ("--bundle", self.bundle),
            ("--weights", self.weights),
            ("--threshold", self.threshold),
        ):
            if value is not None and value != "":
                words += [option, str(value)]
        named = {"keep": ["--keep-names"], "pseudonymize": ["--pseudonymize"]}
        return [*words, *named.get(self.names, []), *(["--force-task"] if self.force else [])]


@dataclass(frozen=True)
class BatchState:
    """How far a run is.

    Attributes:
        done: input files that are finished, by status.
        total: files in the folder; None while they are counted.
        secondsLeft: estimate, or None.
        warnings: input files by what was guessed, left out or concealed in them.
    """

    done: Mapping[str, int] = field(default_factory=dict)
    total: int | None = None
    secondsLeft: float | None = None
    warnings: Mapping[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Input files that are finished."""
        return sum(self.done.values())


class Batch:
    """One run.

    Args:
        command: command that starts `sam2unet`.
        request: what to segment.
        variables: environment variables to start from; this process's own by default.
    """

    def __init__(
        self,
        command: Sequence[str],
        request: BatchRequest,
        *,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.request = request
        self.log: list[str] = []
        self.finished = False
        self._process = BackgroundProcess(
            [*command, *request.arguments()],
            environment=cleanEnvironment(os.environ if variables is None else variables),
        )
        self._status: dict[str, str] = {}
        self._warnings: dict[str, list[str]] = {}
        self._offset = 0
        self._total: int | None = None
        self._started = 0.0
        self._before = 0

    def start(self) -> None:
        """Begin.

        Raises:
            OSError: the program cannot be started.
        """
        self._read()
        self._before = len(self._status)
        self._started = time.monotonic()
        threading.Thread(target=self._count, daemon=True).start()
        self._process.start()

    def poll(self) -> list[tuple]:
        """Return what happened since the last call.

        Events:
            ("line", text), ("state", BatchState) and at last one of ("finished", summary dict,
            report file or None) or ("failed", message, remedy).
        """
        if self.finished:
            return []
        events: list[tuple] = []
        for line in self._process.poll():
            self.log.append(line)
            events.append(("line", line))
        self._read()
        events.append(("state", self.state()))
        if self._process.returncode is not None:
            events.append(self._end(self._process.returncode))
        return events

    def wait(self, timeout: float) -> list[tuple]:
        """Wait for something to happen and return it: for scripts and tests."""
        self._process.wait(timeout)
        return self.poll()

    def cancel(self) -> list[tuple]:
        """Stop the run; finished results are kept, and the same run again resumes."""
        if self.finished:
            return []
        self._process.stop()
        self.finished = True
        return [("cancelled",)]

    def state(self) -> BatchState:
        """Return how far the run is."""
        new = len(self._status) - self._before
        left = None
        if self._total is not None and new > 0:
            seconds = time.monotonic() - self._started
            left = seconds / new * max(0, self._total - len(self._status))
        warnings = Counter(code for codes in self._warnings.values() for code in codes)
        return BatchState(Counter(self._status.values()), self._total, left, warnings)

    def _end(self, code: int) -> tuple:
        self.finished = True
        report = self.request.output / "report.html"
        summary = _lastObject(self.log)
        if code in (0, FAILED) and summary is not None:
            return ("finished", summary, report if report.is_file() else None)
        lines = [line for line in self.log if line.strip()]
        message = lines[-1].removeprefix("Error: ") if lines else f"it ended with code {code}"
        remedy = "Copy the log."
        if code == REFUSED:
            remedy = "Choose another result folder, or wait until the other run has ended."
        elif code < 0 or code > 128:
            remedy = "The program was killed, perhaps because memory ran out. Run again to resume."
        return ("failed", message, remedy)

    def _read(self) -> None:
        """Read the complete lines that were appended to the manifest."""
        try:
            with (self.request.output / "manifest.jsonl").open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except OSError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            entry = _object(line)
            if entry is not None and "id" in entry:
                self._status[str(entry["id"])] = str(entry.get("status"))
                codes = entry.get("warnings")  # older lines have none
                self._warnings[str(entry["id"])] = codes if isinstance(codes, list) else []

    def _count(self) -> None:
        """Count the files of the source, less those of the results."""
        source, output = str(self.request.source), os.path.realpath(self.request.output)
        if not self.request.source.is_dir():
            self._total = 1
            return
        total = 0
        for folder, folders, files in os.walk(source):
            folders[:] = [
                name
                for name in folders
                if os.path.realpath(os.path.join(folder, name)) != output  # noqa: PTH118
            ]
            total += len(files)
        self._total = total


def _lastObject(lines: Sequence[str]) -> dict[str, Any] | None:
    for line in reversed(lines):
        found = _object(line)
        if found is not None:
            return found
    return None


def _object(line: str | bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
