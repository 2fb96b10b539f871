"""The tasks that can be chosen: those of the environment's bundle, and of bundle folders.

No Qt. The worker is asked for them, which takes no PyTorch; the answer is polled.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .protocol import TERMINAL
from .WorkerProcess import WorkerProcess

REPAIR = "press Check or Repair on the Setup tab"


class BundleProblem(Exception):
    """A folder that is no bundle; says what to do."""


@dataclass(frozen=True)
class TaskEntry:
    """One task.

    Attributes:
        name: its name in the bundle.
        title: what a person reads.
        task: content of its `task.json`.
        hasWeights: whether there are weights to run it with.
        bundle: folder of the bundle if it did not come with the module, else None.
    """

    name: str
    title: str
    task: dict[str, Any]
    hasWeights: bool
    bundle: Path | None = None

    @property
    def notice(self) -> str:
        """What was measured, if the task says so."""
        return str(self.task.get("metrics", {}).get("note", ""))

    @property
    def threshold(self) -> float:
        """The task's own threshold."""
        return float(self.task.get("threshold", 0.5))


class TaskCatalog:
    """Asks an environment once for its tasks, through a worker that ends afterwards.

    Args:
        makeWorker: returns a worker for the words that start one.
    """

    def __init__(self, makeWorker: Callable[..., WorkerProcess] = WorkerProcess) -> None:
        self.makeWorker = makeWorker
        self.entries: list[TaskEntry] = []
        self.versions: dict[str, Any] = {}
        self._command: list[str] = []
        self._worker: WorkerProcess | None = None
        self._asked = 0

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""
        return self._worker is not None

    def ask(self, command: Sequence[str], *, variables: Mapping[str, str] | None = None) -> None:
        """Send the question, unless it was answered by the same environment.

        Args:
            command: words that start `sam2unet`.
            variables: environment variables to start from.

        Raises:
            OSError: the worker cannot be started.
        """
        if list(command) == self._command and (self.busy or self.entries):
            return
        self.close()
        self._command, self.entries = list(command), []
        worker = self.makeWorker([*command, "worker"], environment=variables)
        worker.start()
        self._worker = worker
        self._asked = worker.request("hello")

    def poll(self) -> list[tuple]:
        """Return ("tasks", entries) or ("failed", message, remedy) once the answer is there."""
        events = self._worker.poll() if self._worker is not None else []
        for event in events:
            if event.get("id") != self._asked or event.get("event") not in TERMINAL:
                continue
            log = self._worker.log if self._worker is not None else ""
            self.close()
            if event["event"] != "finished":
                self._command = []
                last = log.splitlines()[-1:] or [str(event.get("message", ""))]
                return [("failed", f"the environment does not answer: {last[0]}", REPAIR)]
            self._take(event["result"])
            return [("tasks", self.entries)]
        return []

    def close(self) -> None:
        """End the worker; in a thread, since it may take its time."""
        worker, self._worker = self._worker, None
        if worker is not None:
            threading.Thread(target=worker.stop, daemon=True).start()

    def forget(self) -> None:
        """Ask anew the next time."""
        self.close()
        self._command, self.entries = [], []

    def _take(self, result: dict[str, Any]) -> None:
        self.versions = {key: result.get(key) for key in ("version", "torch", "python")}
        self.entries = [
            TaskEntry(each["name"], each["title"], each["task"], bool(each["has_weights"]))
            for each in result["tasks"]
        ]


def readBundle(folder: Path) -> TaskEntry:
    """Read the task of a bundle folder. Runs nothing of it.

    Raises:
        BundleProblem: it holds no `configs/task.json` that can be read.
    """
    file = folder / "configs" / "task.json"
    try:
        task = json.loads(file.read_text(encoding="utf-8"))
        name, title = str(task["name"]), str(task["title"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleProblem(
            f"{folder}: holds no bundle of SAM2-UNet (configs/task.json). Choose the folder that "
            "has configs and models in it."
        ) from error
    weights = task.get("weights") or {}
    has = bool(weights) and (folder / str(weights.get("file", ""))).is_file()
    return TaskEntry(name, title, task, has, folder)
