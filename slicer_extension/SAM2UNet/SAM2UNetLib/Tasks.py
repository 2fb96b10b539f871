"""What an environment offers: its tasks and output formats; and the tasks of bundle folders.

No Qt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class BundleProblem(Exception):
    """A folder that is not a bundle; says what to do."""


@dataclass(frozen=True)
class TaskEntry:
    """One task.

    Attributes:
        name: its name in the bundle.
        title: what the user reads.
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
        """How well the weights were measured to do, if the task says so."""
        return str(self.task.get("metrics", {}).get("note", ""))

    @property
    def threshold(self) -> float:
        """The task's own threshold."""
        return float(self.task.get("threshold", 0.5))


@dataclass(frozen=True)
class FormatEntry:
    """One output format of a batch run.

    Attributes:
        name: as `sam2unet segment --format` takes it.
        help: what it is, for the user.
    """

    name: str
    help: str


@dataclass(frozen=True)
class Offer:
    """What an environment offers, as its worker says.

    Attributes:
        tasks: tasks of the installed package.
        formats: output formats of a batch run.
    """

    tasks: tuple[TaskEntry, ...]
    formats: tuple[FormatEntry, ...] = ()

    @classmethod
    def of(cls, hello: dict[str, Any]) -> Offer:
        """Read the worker's answer to `hello`."""
        return cls(
            tuple(
                TaskEntry(each["name"], each["title"], each["task"], bool(each["has_weights"]))
                for each in hello["tasks"]
            ),
            tuple(FormatEntry(each["name"], each["help"]) for each in hello.get("formats", ())),
        )


def readBundle(folder: Path) -> TaskEntry:
    """Read the task of a bundle folder. Runs nothing of it.

    Raises:
        BundleProblem: it has no readable `configs/task.json`.
    """
    file = folder / "configs" / "task.json"
    try:
        task = json.loads(file.read_text(encoding="utf-8"))
        name, title = str(task["name"]), str(task["title"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleProblem(
            f"{folder}: not a SAM2-UNet bundle, because configs/task.json cannot be read. Choose "
            "the folder that contains configs and models."
        ) from error
    weights = task.get("weights") or {}
    has = bool(weights) and (folder / str(weights.get("file", ""))).is_file()
    return TaskEntry(name, title, task, has, folder)
