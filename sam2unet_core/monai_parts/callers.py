"""What MONAI was called with: configuration files, overrides, the words on the command line.

MONAI hands none of it to the expressions of a configuration, so it is taken from the arguments of
the functions of `monai.bundle` that are running, which are public, and from `sys.argv`. Their local
variables are left alone. Where neither tells, the checks that need it say that they are off.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fire
from monai.bundle import ConfigParser, ConfigWorkflow, update_kwargs

QUOTES = ("'", '"')


def is_command_line() -> bool:
    """Return whether `python -m monai.bundle` is the program."""
    program = getattr(sys.modules["__main__"], "__spec__", None)
    return program is not None and str(program.name).startswith("monai.bundle")


def running_workflow() -> ConfigWorkflow | None:
    """Return the workflow that is being run, or None."""
    return next(_owners(ConfigWorkflow), None)


def running_parser() -> ConfigParser | None:
    """Return the parser of the configuration that is being resolved, or None."""
    return next(_owners(ConfigParser), None)


def config_files() -> list[Path]:
    """Return the configuration files that are being run; none where that is not known."""
    calls = [call.arguments for call in _calls()]
    if is_command_line():
        calls.append({key: literal(word) for key, word in typed_options().items()})
    for arguments in calls:
        given = arguments.get("config_file")
        if given is None:
            given = _from_args_file(arguments).get("config_file")
        if given and isinstance(given, str | os.PathLike | Sequence):
            return _as_paths(given)
    return []


def overrides() -> dict[str, Any]:
    """Return what was given in place of what the files hold, by id (`a::b`), as MONAI has it.

    That is after fire has read the command line as Python: 2024 is a number, `set#2` is `set`.
    """
    found: dict[str, Any] = {}
    for call in reversed(list(_calls())):
        if "config_file" in call.arguments:
            found |= call.arguments
            found |= update_kwargs(_from_args_file(call.arguments), **call.arguments)
    return {as_id(str(key)): value for key, value in found.items()}


def typed_options() -> dict[str, str]:
    """Return the options of MONAI's command line by id, letter by letter; none in a program."""
    return read_options(sys.argv[1:]) if is_command_line() else {}


def read_options(words: Sequence[str]) -> dict[str, str]:
    """Return the value after each option of a command line, as fire finds them.

    Args:
        words: the command line. `--key value`, `-key value` and `--key=value` are options; a
            hyphen in a key is an underscore; what follows the last ` -- ` is fire's own.

    Returns:
        The values by id; of an option that is given twice, the last. An option without a value,
        which fire takes for True, is left out.
    """
    end = len(words) - 1 - list(reversed(words)).index("--") if "--" in words else len(words)
    given = list(words[:end])
    found: dict[str, str] = {}
    while given:
        word = given.pop(0)
        if not _is_option(word):
            continue
        key, equals, value = word.lstrip("-").partition("=")
        if not equals and given and not _is_option(given[0]):
            equals, value = "=", given.pop(0)
        if equals:
            found[as_id(key.replace("-", "_"))] = value
    return found


def literal(word: str) -> Any:
    """Return what fire makes of a word: a Python literal, or the word itself."""
    return fire.Fire(lambda value: value, command=[f"--value={word}"], serialize=lambda _: None)


def unquoted(word: str) -> str:
    """Return a text without the quotation marks of a Python literal, where it has them."""
    if len(word) > 1 and word[0] in QUOTES and word[-1] == word[0]:
        inner = literal(word)
        if isinstance(inner, str):
            return inner
    return word


def as_id(key: str) -> str:
    """Return a key with MONAI's separator: `a#b` and `a::b` are the same to it."""
    return key.replace("#", "::")


def _is_option(word: str) -> bool:
    return word.startswith("--") or re.match("-[a-zA-Z]", word) is not None


def _from_args_file(arguments: dict[str, Any]) -> dict[str, Any]:
    return dict(update_kwargs(arguments.get("args_file")))


def _as_paths(given: str | os.PathLike[str] | Sequence[Any]) -> list[Path]:
    if isinstance(given, str) and "," in given and not Path(given).is_file():
        given = given.split(",")
    parts = [given] if isinstance(given, str | os.PathLike) else given
    return [Path(str(part).strip()) for part in parts]


@dataclass(frozen=True)
class _Call:
    """A function of `monai.bundle` that is running.

    Attributes:
        owner: the object whose method it is; the first argument of another function.
        arguments: the others by name, those of its `**` among them.
    """

    owner: object
    arguments: dict[str, Any]


def _calls() -> Iterator[_Call]:
    """Give the running functions of `monai.bundle`, the innermost first."""
    frame = inspect.currentframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).startswith("monai.bundle"):
            names, _, more, values = inspect.getargvalues(frame)
            given = {name: values[name] for name in names if name in values}
            owner = next(iter(given.values()), None)
            yield _Call(owner, given | (values.get(more, {}) if more else {}))
        frame = frame.f_back


def _owners(kind: type) -> Iterator[Any]:
    return (call.owner for call in _calls() if isinstance(call.owner, kind))
