"""What the worker says of itself; answered at once, so nothing heavy is imported."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from sam2unet_core import __version__
from sam2unet_core.protocol import PROTOCOL_VERSION
from sam2unet_core.task import Task, installed_bundle, load_preset, presets


def hello() -> dict[str, Any]:
    """Return versions and the tasks that come with the package."""
    return {
        "protocol": PROTOCOL_VERSION,
        "version": __version__,
        "python": platform.python_version(),
        "torch": _version_of("torch"),
        "pid": os.getpid(),
        "tasks": [_described(task) for task in _tasks()],
    }


def _tasks() -> list[Task]:
    """Return the bundle's own task and the others that come along."""
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
