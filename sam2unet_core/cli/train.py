"""`sam2unet train`: prints and runs the bundle's training."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from sam2unet_core.errors import ConfigError
from sam2unet_core.task import Task, installed_bundle, load_preset


def train(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="Folder with images/ and masks/.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    task: Annotated[
        str, typer.Option(help="Task by name, or a task.json; `sam2unet tasks` lists them.")
    ] = "polyp",
    variant: Annotated[str, typer.Option(help="Size of the network.")] = "large",
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in OUTPUT.")] = False,
) -> None:
    """Train SAM2-UNet on images and masks with the MONAI bundle.

    All other settings of the bundle's train.yaml can be added, such as `--epochs 50`.
    """
    options: dict[str, object] = {
        "dataset_dir": str(data),
        "output_dir": str(output),
        "variant": variant,
    }
    overlay = None
    if task.endswith(".json"):
        Task.load(task)
        options["task"] = task
    else:
        load_preset(task)
        overlay = f"tasks/{task}.yaml"
    if resume:
        options["resume"] = True
    command = bundle_command("train.yaml", "training", options, overlay=overlay)
    command += _further(context.args, taken=options)
    typer.echo(subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command))
    raise typer.Exit(subprocess.run(command, check=False).returncode)


def bundle_command(
    config: str, run_id: str, options: Mapping[str, object], *, overlay: str | None = None
) -> list[str]:
    """Return the command that runs a configuration of the installed bundle.

    Args:
        config: file in the bundle's `configs`.
        run_id: the id to run.
        options: overrides by key; text is quoted so that MONAI takes it literally.
        overlay: a second file that overrides values of the first.

    Raises:
        ConfigError: MONAI cannot take a text literally.
    """
    configs = installed_bundle() / "configs"
    files = [str(configs / name) for name in (config, overlay) if name]
    command = [sys.executable, "-m", "monai.bundle", "run", run_id]
    command += ["--config_file", str(files) if overlay else _quoted(files[0])]
    for key, value in options.items():
        text = _quoted(_plain(key, value)) if isinstance(value, str) else str(value)
        command += [f"--{key}", text]
    return command


def _further(words: list[str], *, taken: Mapping[str, object]) -> list[str]:
    """Return the settings of the bundle that follow the command's own options.

    Raises:
        ConfigError: one repeats an option of the command, or a word belongs to no option.
    """
    result: list[str] = []
    follows_key = False
    for word in words:
        key, equals, value = word.partition("=")
        if re.match("--?[a-zA-Z]", key):
            name = key.lstrip("-").replace("-", "_")
            if name in taken:
                option = _OPTIONS.get(name, f"--{name}")
                raise ConfigError(f"{key}: same as {option}; give only one of them")
            follows_key = not equals
            result.append(f"{key}={_plain(name, value)}" if equals else word)
        elif follows_key:
            follows_key = False
            result.append(_plain("setting", word))
        else:
            raise ConfigError(
                f"{word!r} belongs to no option; quote paths with blanks, and put -- before the "
                "name of a setting"
            )
    return result


def _plain(key: str, text: str) -> str:
    """Return a text that MONAI takes literally; it evaluates `$`, `@` and `%`."""
    if _RELATIVE.search(text):
        raise ConfigError(
            f"{key} {text}: MONAI cannot handle @ or % followed by ## or ::; rename the folder, "
            "or give a link to it"
        )
    if text[:1] == "%" or (key in _OPTIONS and text[:1] in ("$", "@", "-")):
        return f"./{text}"
    return text


def _quoted(text: str) -> str:
    """Return a text for MONAI's command line; quote what fire would parse as Python."""
    import fire

    read = fire.Fire(lambda value: value, command=[f"--value={text}"], serialize=lambda _: None)
    if read == text and text[:1] not in ("'", '"'):
        return text
    return f'"{text}"' if text.isprintable() and not {'"', "\\"} & set(text) else repr(text)


_OPTIONS = {
    "dataset_dir": "--data",
    "output_dir": "--output",
    "task": "--task",
    "groups": "--groups",
    "weights": "--weights",
}
"""Settings that are paths, and the names of the command's options for them."""
_RELATIVE = re.compile("[@%](#|::){2}")
