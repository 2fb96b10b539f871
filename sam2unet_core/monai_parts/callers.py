"""How MONAI was called: configuration files, overrides and the command line.

MONAI passes none of this to the expressions of a configuration. It is read from the public
arguments of the running `monai.bundle` functions (never from their local variables) and from
`sys.argv`. If neither has it, the checks that need it warn that they are off.
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
    """Return whether the program is `python -m monai.bundle`."""
    program = getattr(sys.modules["__main__"], "__spec__", None)
    return program is not None and str(program.name).startswith("monai.bundle")


def running_workflow() -> ConfigWorkflow | None:
    """Return the running workflow, or None."""
    return next(_owners(ConfigWorkflow), None)


def running_parser() -> ConfigParser | None:
    """Return the parser that is resolving a configuration, or None."""
    return next(_owners(ConfigParser), None)


def config_files() -> list[Path]:
    """Return the configuration files of the run; empty if they are not known."""
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
    """Return the values that override the configuration files, by id (`a::b`), as MONAI has them.

    fire has already parsed the command line as Python: 2024 is a number, `set#2` is `set`.
    """
    found: dict[str, Any] = {}
    for call in reversed(list(_calls())):
        if "config_file" in call.arguments:
            found |= call.arguments
            found |= update_kwargs(_from_args_file(call.arguments), **call.arguments)
    return {as_id(str(key)): value for key, value in found.items()}


def typed_options() -> dict[str, str]:
    """Return the unparsed options of MONAI's command line by id; empty in any other program."""
    return read_options(sys.argv[1:]) if is_command_line() else {}


def read_options(words: Sequence[str]) -> dict[str, str]:
    """Return the value of each option of a command line, as fire finds them.

    Args:
        words: the command line. `--key value`, `-key value` and `--key=value` are options; hyphens
            in keys become underscores; everything after the last ` -- ` is for fire itself.

    Returns:
        The values by id; if an option is given twice, the last. Options without a value, which are
        True to fire, are left out.
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
    """Parse a word as fire does: into a Python literal, or the word itself."""
    return fire.Fire(lambda value: value, command=[f"--value={word}"], serialize=lambda _: None)


def unquoted(word: str) -> str:
    """Return a text without the quotation marks of a Python literal, if it has them."""
    if len(word) > 1 and word[0] in QUOTES and word[-1] == word[0]:
        inner = literal(word)
        if isinstance(inner, str):
            return inner
    return word


def as_id(key: str) -> str:
    """Return a key with MONAI's separator `::`, which is a synonym of `#`."""
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
    """A running function of `monai.bundle`.

    Attributes:
        owner: its first argument; `self` if it is a method.
        arguments: all arguments by name, including those of `**kwargs`.
    """

    owner: object
    arguments: dict[str, Any]


def _calls() -> Iterator[_Call]:
    """Yield the running functions of `monai.bundle`, innermost first."""
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
