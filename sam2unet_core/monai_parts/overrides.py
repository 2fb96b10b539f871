"""Overrides of configuration values: keeps paths and names literal, and checks every value.

MONAI interprets text: fire parses the command line as Python (2024, None, a,b, `set#2`), and a
configuration evaluates `$` as code, `@` and `%` as references, and `#` as `::`. Paths and names
must stay literal, so they are placed where MONAI keeps values that are already resolved.
"""

from __future__ import annotations

import difflib
import inspect
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import monai
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle import run as monai_run
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from sam2unet_core.errors import ConfigError
from sam2unet_core.monai_parts.callers import (
    as_id,
    config_files,
    literal,
    overrides,
    running_parser,
    running_workflow,
    typed_options,
    unquoted,
)
from sam2unet_core.monai_parts.settings import kind_of

_MARKS = ("$", "@", "%")


def __getattr__(name: str) -> object:
    """Run `keep_texts` when `texts_as_given` is imported, and return its result.

    The configurations import it first. MONAI runs all import statements, including a value such as
    `$import x`, before it resolves anything; by then, that value is literal text.
    """
    if name == "texts_as_given":
        return keep_texts()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def keep_texts() -> tuple[str, ...]:
    """Make the running configuration take paths and names literally.

    Text from the command line, the arguments of `monai.bundle.run` or its arguments file is never
    evaluated. In the configuration file it may be an expression, but `#` is kept.

    Returns:
        The ids of the values that were kept literal.
    """
    parser = running_parser()
    if parser is None:
        _warn("paths and names are not kept as they were given", "configuration")
        return ()
    typed, given, files = typed_options(), overrides(), _from_files()
    kept = []
    for key in dict.fromkeys([*files, *given, *typed]):
        default = _find(files, key)
        kind = kind_of(key, default)
        if kind is None or not kind.is_text or key not in parser:
            continue
        text = _text_of(key, typed, given, default, current=parser[key])
        if text is not None and _store_literal(parser, key, text, default):
            kept.append(key)
    return tuple(kept)


def check_overrides() -> None:
    """Check that overrides have existing keys and valid values, which MONAI does not check.

    A new key of a component (a mapping with `_target_`) is accepted as an argument. Values are
    converted to what their setting needs, such as the name of a device to a device. If it is not
    known how MONAI was called, a warning says what is not checked.

    Raises:
        ConfigError: an override of a key that does not exist; an invalid value; `true`, `false` or
            `null` on the command line, where they are text; or a stray word, which MONAI takes
            for the name of a step.
    """
    workflow = running_workflow()
    if workflow is None:
        _warn("settings are not checked", "workflow")
        return
    keep_texts()
    files = _from_files()
    if not files:
        _warn("unknown settings are not detected", "configuration file")
    _check_steps(workflow)
    _check_tracking(workflow.parser)
    if files:
        _check_words(workflow.parser, files)
        _check_keys(workflow.parser, files)
    _check_none(workflow.parser, files)
    _check_values(workflow.parser, files)


def _warn(what: str, missing: str) -> None:
    warnings.warn(
        f"{what}: no {missing} was found in the call stack of MONAI {monai.__version__}; run the "
        "bundle with monai.bundle.run or python -m monai.bundle run",
        stacklevel=3,
    )


def _from_files() -> dict[str, Any]:
    """Return the content of the running configuration's files; empty if they are not known."""
    files = config_files()
    if not files or not all(file.is_file() for file in files):
        return {}
    return dict(ConfigParser.load_config_files([str(file) for file in files]))


def _text_of(
    key: str, typed: Mapping[str, str], given: Mapping[str, Any], default: object, *, current: Any
) -> str | None:
    """Return a text as the user gave it, or None if MONAI has it unchanged."""
    if key in typed:
        return unquoted(typed[key])
    if key in given:
        value = given[key]
        text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
        is_current = as_id(str(text)) == str(current) or str(text).startswith(_MARKS)
        return text if is_current else None
    is_code = isinstance(default, str) and default.startswith(_MARKS)
    changed = isinstance(default, str) and default != current and as_id(default) == current
    return str(default) if changed and not is_code else None


def _store_literal(parser: ConfigParser, key: str, text: str, default: object) -> bool:
    """Store a text where MONAI does not interpret it; return whether that was needed.

    Raises:
        ConfigError: this version of MONAI would still interpret it.
    """
    if "::" not in key:
        item = parser.ref_resolver.items.get(key)
        if item is not None:  # MONAI may be resolving it already
            item.evaluate = lambda *_, **__: text
        parser.ref_resolver.resolved_content[key] = text
        kept = parser.ref_resolver.get_resolved_content(key, instantiate=False, eval_expr=False)
        if kept != text:
            raise ConfigError(
                f"{key}: MONAI {monai.__version__} does not keep texts as they were given; "
                "install a version that pyproject.toml allows"
            )
        return True
    # An argument of a component: MONAI interprets text but not a Path.
    plain = literal(text) == text == as_id(text) and not text.startswith(_MARKS)
    if plain or not (default is None or isinstance(default, str)):
        return False
    node, leaf = parser[key.rpartition("::")[0]], key.rpartition("::")[2]
    node[leaf if isinstance(node, dict) else int(leaf)] = Path(text)
    return True


def _check_steps(workflow: ConfigWorkflow) -> None:
    """Check that the steps to run exist; MONAI takes stray words for names of steps."""
    steps = {"run_id": workflow.run_id, "init_id": workflow.init_id, "final_id": workflow.final_id}
    usual = {"init_id": "initialize", "final_id": "finalize"}
    for kind, step in steps.items():
        if step in workflow.parser or step == usual.get(kind):
            continue
        if kind == "run_id":
            known = [key for key, value in workflow.parser.get().items() if isinstance(value, list)]
            raise ConfigError(f"unknown step {step!r}{_did_you_mean(str(step), known)}")
        raise ConfigError(
            f"{step!r} belongs to no option, so MONAI takes it for the name of a step ({kind}); "
            "quote paths with blanks, and put -- before the name of a setting"
        )


def _check_tracking(parser: ConfigParser) -> None:
    """Refuse MONAI's own tracking of training: it records paths and expects a different output."""
    if overrides().get("tracking") is not None and "mlflow" in parser:
        raise ConfigError(
            "tracking: not supported in training; give --mlflow True instead, which writes to the "
            "run's folder"
        )


def _check_words(parser: ConfigParser, files: Mapping[str, Any]) -> None:
    words = [
        f"{key} {value}"
        for key, value in _values(parser.get())
        if _is_misspelt(value) and not _is_text(key, files)
    ]
    if words:
        raise ConfigError(
            f"{', '.join(words)}: taken as text on the command line; write True, False or None"
        )


def _check_keys(parser: ConfigParser, files: Mapping[str, Any]) -> None:
    known = dict(files)
    for settings in DEFAULT_EXP_MGMT_SETTINGS.values():  # `--tracking` adds these
        known |= {key: None for key in settings["configs"] if key not in known}
    unknown = list(_unknown_keys(parser.get(), known))
    if unknown:
        hints = [key + _did_you_mean(key, list(_all_keys(files))) for key in unknown]
        name = config_files()[0].name
        raise ConfigError(f"no such setting: {'; '.join(hints)}; see {name}")


def _check_none(parser: ConfigParser, files: Mapping[str, Any]) -> None:
    """Apply None from the command line to optional settings, and refuse it elsewhere.

    MONAI would ignore it.
    """
    own = {*inspect.signature(monai_run).parameters, *_PARAMETERS}
    for key, word in typed_options().items():
        if literal(word) is not None or key in own or _is_text(key, files):
            continue
        if key not in parser:
            hint = _did_you_mean(key, list(_all_keys(files)))
            raise ConfigError(f"no such setting: {key.replace('::', '#')}{hint}")
        if "::" in key or kind_of(key, _find(files, key)) is None:
            raise ConfigError(
                f"{key.replace('::', '#')} None: MONAI ignores None on the command line; write "
                "null in your own configuration file and give it after the bundle's in "
                "--config_file"
            )
        parser.ref_resolver.resolved_content[key] = None


def _check_values(parser: ConfigParser, files: Mapping[str, Any]) -> None:
    """Check each setting, and each override of a component's argument, against its kind."""
    config, resolved = parser.get(), parser.ref_resolver.resolved_content
    for key in [key for key in config if key != "_meta_"]:
        kind = kind_of(key, _find(files, key))
        value = resolved[key] if key in resolved else config[key]
        if kind is None or (key not in resolved and _is_code(value)):
            continue
        if key not in resolved and kind.is_text and _may_be_changed(value, _find(files, key)):
            raise ConfigError(
                f"{key} {value}: MONAI replaces # with ::, so the original path is not known; run "
                "the bundle with monai.bundle.run, or give a path without # and ::"
            )
        resolved[key] = kind.value(key, value)
    for key in [key for key in {**overrides(), **typed_options()} if "::" in key]:
        kind = kind_of(key)
        value = parser.get(key)
        if kind is not None and not kind.is_text and not _is_code(value):
            kind.value(key.replace("::", "#"), value)


def _is_text(key: str, files: Mapping[str, Any]) -> bool:
    kind = kind_of(as_id(key), _find(files, as_id(key)))
    return kind is not None and kind.is_text


def _may_be_changed(value: object, default: object) -> bool:
    return isinstance(value, str) and "::" in value and value != default


def _is_code(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("$", "@"))


def _find(config: Any, key: str) -> Any:
    """Return the value of an id in a configuration's content, or None."""
    for part in key.split("::"):
        if isinstance(config, list) and part.isdecimal() and int(part) < len(config):
            config = config[int(part)]
        elif isinstance(config, Mapping):
            config = config.get(part)
        else:
            return None
    return config


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


def _did_you_mean(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _all_keys(config: Mapping[str, Any]) -> Iterator[str]:
    for key, value in config.items():
        yield key
        if isinstance(value, Mapping):
            yield from (f"{key}#{below}" for below in _all_keys(value))


_PARAMETERS = ("workflow_name", "workflow_type", "properties_path")
"""Parameters of MONAI's `run_workflow` that `run` does not have."""
