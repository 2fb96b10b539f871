"""`hello` and `fits`: answered immediately, so this module imports nothing slow."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from sam2unet_core import __version__
from sam2unet_core.batch.formats import FORMATS
from sam2unet_core.inference.runtimes import RUNTIME_NAMES
from sam2unet_core.protocol import PROTOCOL_VERSION, ProtocolError
from sam2unet_core.task import Task, installed_bundle, load_preset, presets
from sam2unet_core.types import rejection_reason
from sam2unet_core.worker.fields import Fields, take_properties, take_task

MOST_TASKS = 200
"""Tasks that one `fits` may give at most."""


def hello(fields: Fields) -> dict[str, Any]:
    """Return versions, built-in tasks, runtimes and output formats."""
    fields.end()
    return {
        "protocol": PROTOCOL_VERSION,
        "version": __version__,
        "python": platform.python_version(),
        "torch": _version_of("torch"),
        "pid": os.getpid(),
        "tasks": [_described(task) for task in _tasks()],
        "runtimes": list(RUNTIME_NAMES),
        "formats": [{"name": each.name, "help": each.help} for each in FORMATS.values()],
    }


def fits(fields: Fields) -> dict[str, Any]:
    """Return for each task why it does not accept a DICOM source, or null if it does.

    Raises:
        ProtocolError: the source or the tasks are missing or invalid.
        TaskError: there is no such task.
    """
    source, named = fields.inner("source"), fields.anything("tasks")
    fields.end()
    if source is None or not isinstance(named, list) or len(named) > MOST_TASKS:
        raise ProtocolError("bad_request", "fits: expected a source and a list of tasks")
    properties = take_properties(source)
    rejections = [rejection_reason(take_task(each), properties) for each in named]
    return {"rejections": [r and {"reason": r.reason, "message": r.message} for r in rejections]}


def _tasks() -> list[Task]:
    """Return the bundle's own task, then the other built-in ones."""
    own = Task.load(installed_bundle() / "configs" / "task.json")
    return [own, *(load_preset(name) for name in presets() if name != own.name)]


def _described(task: Task) -> dict[str, Any]:
    content = task.to_dict()
    weights = task.weights
    return {
        "name": task.name,
        "title": task.title,
        "classes": [item.label for item in task.classes],
        "accepts": content["accepts"],
        "has_weights": weights is not None and (installed_bundle() / weights.file).is_file(),
        "task": content,
    }


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
