"""Where the bundle is, which task it runs, and how errors are shown."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from sam2unet_core.console import error_line, escape_what_cannot_be_shown
from sam2unet_core.errors import ConfigError
from sam2unet_core.inference.model import ModelSource, choose_model, choose_task, unmeasured
from sam2unet_core.monai_parts.callers import config_files, is_command_line, running_workflow
from sam2unet_core.task import Task, installed_bundle

logger = logging.getLogger(__name__)


def find_bundle_root() -> str:
    """Return the folder of the bundle that the running configuration belongs to.

    The first bundle of these: the one with the configuration file, the working directory, the
    installed bundle. `--bundle_root` replaces this call.
    """
    workflow = running_workflow()
    folders = [file.parent.parent for file in config_files()]
    folders += [workflow.config_root_path.parent] if workflow is not None else []
    for folder in [*folders[:1], Path.cwd()]:
        if (folder / "configs" / "task.json").is_file():
            return str(folder.resolve())
    return str(installed_bundle())


def training_task(
    bundle_root: str, task: str | None = None, image_size: Sequence[int] | None = None
) -> Task:
    """Return the task to train for, without the metrics of existing weights.

    Args:
        bundle_root: folder of the bundle.
        task: a `task.json`, or the name of a task; the bundle's by default.
        image_size: `(height, width)` of the network's input; the task's by default.

    Raises:
        TaskError: there is no such task, or the image size is invalid.
    """
    found = unmeasured(choose_task(bundle_root, task))
    if image_size is None:
        return found
    return Task.from_dict(found.to_dict() | {"image_size": list(image_size)})


def choose_bundle_model(
    bundle_root: str, task: str | None = None, weights: str | None = None
) -> ModelSource:
    """Return the task to run and its weights file.

    Args:
        bundle_root: folder of the bundle.
        task: a `task.json`, or the name of a built-in task; by default the task stored in
            `weights`, else the bundle's.
        weights: a weights file; the bundle's by default.

    Raises:
        TaskError: there is no such task, or its file is not valid.
        WeightsError: the weights file cannot be read, or is not the one that the bundle names.
        MissingWeightsError: no weights were given, and the task has none.
    """
    source = choose_model(bundle_root, task=task, weights=weights, weights_first=True)
    source.check()
    return source


def run_folder(output_dir: str | None, *, kind: str, resume: bool = False) -> str:
    """Return the folder for results, without creating it.

    Args:
        output_dir: the folder from the user; by default `./runs/<kind>-<date>-<time>`.
        kind: the kind of run, for the default name.
        resume: whether to resume the run in the folder.

    Raises:
        ConfigError: `resume` is set without a folder.
    """
    if output_dir is None:
        if resume:
            raise ConfigError("resume: no run given; give its folder with --output_dir")
        output_dir = str(Path("runs") / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}")
    return output_dir


def report_errors_in_one_line() -> None:
    """Make MONAI's command line show an expected error as one line and exit with code 2.

    Characters that the console cannot show are written as escapes. Called from `initialize`; does
    nothing in a program that runs the bundle from Python.
    """
    if is_command_line():
        sys.excepthook = _show_error
        escape_what_cannot_be_shown()


def _show_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    causes = list(_causes(error))
    line = next((line for line in map(error_line, causes) if line is not None), None)
    if line is None:
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(f"{line}\n")
    raise SystemExit(2)  # a normal exit, which closes logs and MLflow runs


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes: MONAI wraps errors in others."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
