"""Where a bundle stands, which task it runs, and whether every override names a real key."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from sam2unet_core.errors import ConfigError, SAM2UNetError
from sam2unet_core.network.checkpoint import read_info
from sam2unet_core.segmenter import unmeasured
from sam2unet_core.task import Task, installed_bundle, load_preset

logger = logging.getLogger(__name__)


def find_bundle_root() -> str:
    """Return the folder of the bundle that the running configuration belongs to.

    In this order: the bundle that holds the configuration file, the working directory, the
    installed bundle. (`--bundle_root` comes before all, since it replaces this call.)
    MONAI does not hand the configuration's path to its expressions, so it is taken from the
    calling `monai.bundle` function.
    """
    caller = inspect.currentframe()
    folders = [file.parent.parent for file in _config_files(caller)]
    folders += [workflow.config_root_path.parent for workflow in _workflows(caller)]
    for folder in [*folders[:1], Path.cwd()]:
        if (folder / "configs" / "task.json").is_file():
            return str(folder.resolve())
    return str(installed_bundle())


def check_overrides() -> None:
    """Refuse an override that names no key of the configuration; MONAI takes it silently.

    A new key below a component (something with `_target_`) is an argument of it, so it passes.

    Raises:
        ConfigError: names each unknown key and the nearest known one, or each value `true`,
            `false` or `null`, which would be text and so count as yes.
    """
    workflow = next(_workflows(inspect.currentframe()), None)
    files = _config_files(inspect.currentframe())
    if workflow is None or not files or not all(file.is_file() for file in files):
        return
    known = ConfigParser.load_config_files([str(file) for file in files])
    words = [f"{k} {v}" for k, v in _values(workflow.parser.get()) if _is_misspelt(v)]
    if words:
        raise ConfigError(
            f"{', '.join(words)}: taken as text on the command line; write True, False or None"
        )
    unknown = list(_unknown_keys(workflow.parser.get(), known))
    if unknown:
        hints = [_hint(key, known) for key in unknown]
        raise ConfigError(f"no such setting: {'; '.join(hints)} (set in {files[0].name})")


def training_task(
    bundle_root: str, task: str | None = None, image_size: Sequence[int] | None = None
) -> Task:
    """Return the task to train for: that of `read_task`, without what belongs to its weights.

    Args:
        bundle_root: folder of the bundle.
        task: as in `read_task`.
        image_size: `(height, width)` of the network's input in place of the task's.

    Raises:
        TaskError: there is no such task, or the image size is none.
    """
    found = unmeasured(read_task(bundle_root, task))
    if image_size is None:
        return found
    return Task.from_dict(found.to_dict() | {"image_size": list(image_size)})


def read_task(bundle_root: str, task: str | None = None, weights: str | None = None) -> Task:
    """Return the task to run.

    Args:
        bundle_root: folder of the bundle.
        task: a `task.json`, or the name of a task that comes with the package.
        weights: a weights file; without `task`, the task that it holds is taken. With neither,
            the bundle's own task.

    Raises:
        TaskError: there is no such task, or the file is not one.
        WeightsError: the weights file cannot be read.
    """
    own = Path(bundle_root) / "configs" / "task.json"
    if task is None:
        held = read_info(weights).task if weights else None
        if held is not None:
            return held
    if task is not None and task.endswith(".json"):
        found = Task.load(task)
    elif own.is_file() and task in (None, Task.load(own).name):
        found = Task.load(own)
    else:
        found = load_preset(str(task))
    return found if weights is None else unmeasured(found)


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

    Called from `initialize`; a program that runs the bundle from Python keeps its own handling.
    """
    program = getattr(sys.modules["__main__"], "__spec__", None)
    if program is not None and program.name.startswith("monai.bundle"):
        sys.excepthook = _show_error


def _show_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, SAM2UNetError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        sys.__excepthook__(kind, error, trace)
        return
    sys.stdout.flush()
    sys.stderr.write(f"Error: {cause}\n")
    sys.stderr.flush()
    os._exit(2)  # a hook cannot set the exit code; no worker is left to wait for


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).startswith("monai.bundle"):
            yield frame
        frame = frame.f_back


def _workflows(frame: FrameType | None) -> Iterator[ConfigWorkflow]:
    for caller in _frames(frame):
        if isinstance(caller.f_locals.get("self"), ConfigWorkflow):
            yield caller.f_locals["self"]


def _config_files(frame: FrameType | None) -> list[Path]:
    for caller in _frames(frame):
        for name in ("config_file_", "config_file"):
            given = caller.f_locals.get(name)
            if given:
                parts = given.split(",") if isinstance(given, str) else given
                return [Path(str(part).strip()) for part in parts]
    return []


def _unknown_keys(given: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    for key, value in given.items():
        if key == "_meta_":
            continue
        if key not in known:
            if "_target_" not in known:
                yield key
        elif isinstance(value, Mapping) and isinstance(known[key], Mapping):
            for below in _unknown_keys(value, known[key]):
                yield f"{key}#{below}"


def _values(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if key == "_meta_":
            continue
        if isinstance(value, Mapping):
            yield from ((f"{key}#{below}", found) for below, found in _values(value))
        else:
            yield key, value


def _is_misspelt(value: object) -> bool:
    return isinstance(value, str) and value.lower() in ("true", "false", "null")


def _hint(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, list(_all_keys(known)), n=1)
    return f"{key} (did you mean {near[0]}?)" if near else key


def _all_keys(config: Mapping[str, Any]) -> Iterator[str]:
    for key, value in config.items():
        yield key
        if isinstance(value, Mapping):
            yield from (f"{key}#{below}" for below in _all_keys(value))
