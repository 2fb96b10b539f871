"""Where a bundle stands, which task it runs, and how its errors are shown."""

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

    In this order: the bundle that holds the configuration file, the working directory, the
    installed bundle. (`--bundle_root` comes before all, since it replaces this call.)
    MONAI does not hand the configuration's path to its expressions, so it is taken from the
    calling `monai.bundle` function.
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
    """Return the task to train for, without what belongs to its weights.

    Args:
        bundle_root: folder of the bundle.
        task: a `task.json`, or the name of a task; the bundle's own by default.
        image_size: `(height, width)` of the network's input in place of the task's.

    Raises:
        TaskError: there is no such task, or the image size is none.
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
        task: a `task.json`, or the name of a task that comes with the package.
        weights: a weights file; without `task`, the task that it holds is taken. With neither,
            the bundle's own.

    Raises:
        TaskError: there is no such task, or the file is not one.
        WeightsError: the weights file cannot be read, or is not the one that the bundle names.
        MissingWeightsError: none was given and the task has none.
    """
    source = choose_model(bundle_root, task=task, weights=weights, weights_first=True)
    source.check()
    return source


def run_folder(output_dir: str | None, *, kind: str, resume: bool = False) -> str:
    """Return the folder that results go to; it is made by whoever writes there first.

    Args:
        output_dir: as the user gave it; by default `./runs/<kind>-<date>-<time>`.
        kind: what runs, for the default name.
        resume: whether to continue what is in the folder.

    Raises:
        ConfigError: to resume, the folder has to be given.
    """
    if output_dir is None:
        if resume:
            raise ConfigError("resume: which run? give its folder with --output_dir")
        output_dir = str(Path("runs") / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}")
    return output_dir


def report_errors_in_one_line() -> None:
    """Show an expected error as one line and exit with 2, when MONAI's command line is the program.

    Nor does a name that the console cannot show end the run: it is written with escapes. Called
    from `initialize`; a program that runs the bundle from Python keeps its own handling.
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
    raise SystemExit(2)  # Python ends as usual after it: logs and runs of MLflow are closed


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and what it came of: MONAI wraps each error in others."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
