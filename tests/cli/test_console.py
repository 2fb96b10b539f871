"""Printing never fails a run that is done, whatever the console can show."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import typing
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from sam2unet_core.cli import app
from sam2unet_core.cli.main import COMMANDS
from sam2unet_core.phantom import write_dataset

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
NAMES = ("caf\u00e9", "\u0434\u043e\u043c", "\u76f4\u817a", "caf\udce9", "[/x]", ":smile:")
"""Latin, Cyrillic, Chinese, a byte that is no UTF-8, and two that rich would read."""
ODD = ("2024", "1.10", "1e5", "None", "True", "set#2", "a,b", "[x]", "$x", "@x", "%x", "it's")


@pytest.fixture
def run(run_python: Run) -> Run:
    """Run Python with a console of an encoding."""

    def call(words: list[str], *, encoding: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
        environment = os.environ | {
            "PYTHONIOENCODING": encoding,
            "CUDA_VISIBLE_DEVICES": "-1",
            "COLUMNS": "200",
        }
        done = run_python(*words, cwd=cwd, env=environment, text=False)
        assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
        return done

    return call


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8", "ascii:strict"])
def test_a_path_that_the_console_cannot_show_fails_nothing(encoding, run, tmp_path):
    name = "/".join(NAMES)
    done = run(
        ["-m", "sam2unet_core", "phantom", name, "--frames", "1", "--size", "32", "32"],
        encoding=encoding,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    shown = name.encode(encoding.partition(":")[0], errors="backslashreplace")
    if "ascii" not in encoding:  # click takes such a console for a mistake, and writes UTF-8
        assert done.stdout.rstrip().endswith(b": " + shown)
    assert (tmp_path / name / "images").is_dir()
    done = run(["-m", "sam2unet_core", "phantom", name], encoding=encoding, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == b"Error: " + shown + b": not an empty folder; name a new one"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_json_is_json_on_any_console(encoding, run, tmp_path):
    write_dataset(tmp_path / "data", frames=2, seed=1, size=(32, 32))
    for kind in ("images", "masks"):
        for number, file in enumerate(sorted((tmp_path / "data" / kind).iterdir())):
            file.rename(file.with_name(f"\u00e9\u0434{number}.png"))
    words = ["-m", "sam2unet_core", "evaluate", "data/masks", "data", "--json"]
    done = run(words, encoding=encoding, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode(encoding))["images"] == 2
    done = run(["-m", "sam2unet_core", "tasks", "--json"], encoding=encoding, cwd=tmp_path)
    assert len(json.loads(done.stdout.decode(encoding))) == 10


@pytest.mark.parametrize("encoding", ["ascii:strict", "cp1252"])
def test_segmenting_and_the_bundle_end_well_on_a_poor_console(encoding, run, tmp_path):
    from sam2unet_core.task import installed_bundle

    for name in ("\u0434\u043e\u043c", "caf\udce9"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (64, 64)).save(tmp_path / name / "a.png")
        words = ["-m", "sam2unet_core", "segment", name, "-o", f"out-{name}"]
        assert run(words, encoding=encoding, cwd=tmp_path).returncode == 0
    write_dataset(tmp_path / "\u76f4", frames=2, seed=1, size=(32, 32))
    config = str(installed_bundle() / "configs" / "evaluate.yaml")
    words = ["-m", "monai.bundle", "run", "--config_file", config]
    words += ["--dataset_dir", "\u76f4", "--output_dir", "\u817a"]
    done = run(words, encoding=encoding, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"Logging error" not in done.stderr
    assert (tmp_path / "\u817a" / "summary.json").is_file()


def commands(group, before=()):
    for name, each in group.commands.items():
        if hasattr(each, "commands"):
            yield from commands(each, (*before, name))
        else:
            yield (*before, name), inspect.unwrap(each.callback)


ALL = dict(commands(typer.main.get_command(app)))


def shown(value: object) -> str:
    return " ".join(value) if isinstance(value, tuple) else "callback"


def is_text(kind: object) -> bool:
    """Whether an option's type is a path or a text: not a number, a flag or a closed choice."""
    return kind in (str, Path) or any(is_text(each) for each in typing.get_args(kind))


@pytest.mark.parametrize(("words", "callback"), list(ALL.items()), ids=shown)
def test_every_path_and_name_of_every_command_is_the_text_that_was_given(words, callback):
    given: dict[str, object] = {}

    def command(**values: object) -> None:
        given.update(values)

    kinds = typing.get_type_hints(callback, include_extras=True)
    signature = inspect.signature(callback)
    parameters = [p.replace(annotation=kinds[n]) for n, p in signature.parameters.items()]
    command.__signature__ = signature.replace(parameters=parameters, return_annotation=None)
    command.__annotations__ = kinds
    alone = typer.Typer()
    alone.command()(command)
    texts = [name for name in signature.parameters if is_text(kinds[name])]
    for odd in ODD:
        options, arguments = [], []
        for name in texts:
            info = kinds[name].__metadata__[0]
            if isinstance(info, typer.models.ArgumentInfo):
                arguments.append(odd)
            else:
                names = [str(each) for each in (info.default, *(info.param_decls or ()))]
                long = [each for each in names if each.startswith("--")]
                options.append(f"{(long or ['--' + name.replace('_', '-')])[0]}={odd}")
        done = CliRunner().invoke(alone, [*options, "--", *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        for name in texts:
            value = given[name]
            assert str(value[0] if isinstance(value, list) else value) == odd, name


def test_the_commands_that_are_tried_are_all_there_are():
    assert {words[0] for words in ALL} == set(COMMANDS)
    assert ("weights", "split") in ALL
