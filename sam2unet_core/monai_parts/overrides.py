"""What is given in place of a configuration's values: texts kept as they are, all checked.

MONAI reads texts with its own eyes. fire takes the command line for Python (2024, None, a,b,
`set#2`); a configuration takes `$` for code, `@` and `%` for references, and `#` for `::`. Paths
and names are none of it, so they are put where MONAI keeps what it has read already.
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
    """Give `texts_as_given`, the names of the texts that were kept: done when it is asked for.

    The configurations import it before all else. MONAI runs every import statement that it finds,
    a value `$import x` among them, before it resolves anything: after this, that value is text.
    """
    if name == "texts_as_given":
        return keep_texts()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def keep_texts() -> tuple[str, ...]:
    """Have the running configuration take paths and names letter by letter.

    A text that was given on the command line, to `monai.bundle.run` or in its arguments' file is
    never evaluated. What a configuration's own file holds may be an expression; a `#` stays one.

    Returns:
        The ids of the texts that were kept.
    """
    parser = running_parser()
    if parser is None:
        _warn("paths and names are not kept as they were given", "configuration being resolved")
        return ()
    typed, given, files = typed_options(), overrides(), _from_files()
    kept = []
    for key in dict.fromkeys([*files, *given, *typed]):
        default = _find(files, key)
        kind = kind_of(key, default)
        if kind is None or not kind.is_text or key not in parser:
            continue
        text = _text_of(key, typed, given, default, current=parser[key])
        if text is not None and _place(parser, key, text, default):
            kept.append(key)
    return tuple(kept)


def check_overrides() -> None:
    """Refuse an override that names no key of the configuration, or that cannot be what it sets.

    MONAI takes either silently. A new key below a component (something with `_target_`) is an
    argument of it, so it passes. Values are made what their setting needs: a device's name a
    device.

    What cannot be checked, because it is not known what MONAI was called with, is warned of.

    Raises:
        ConfigError: names each unknown key and the nearest known one; each value `true`, `false`
            or `null`, which would be text and so count as yes; or a setting, what was got and
            what is expected. Also for a stray word, which MONAI takes for the name of a step.
    """
    workflow = running_workflow()
    if workflow is None:
        _warn("settings are not checked", "workflow being run")
        return
    keep_texts()
    files = _from_files()
    if not files:
        _warn("settings are not checked against those there are", "file of the configuration")
    _check_steps(workflow)
    _check_tracking(workflow.parser)
    if files:
        _check_words(workflow.parser, files)
        _check_keys(workflow.parser, files)
    _check_none(workflow.parser, files)
    _check_values(workflow.parser, files)


def _warn(what: str, lacking: str) -> None:
    warnings.warn(
        f"{what}: no {lacking} was found among the callers, which are MONAI {monai.__version__}; "
        "run the bundle with monai.bundle.run or python -m monai.bundle run",
        stacklevel=3,
    )


def _from_files() -> dict[str, Any]:
    """Return what the running configuration's files hold; nothing where they are not known."""
    files = config_files()
    if not files or not all(file.is_file() for file in files):
        return {}
    return dict(ConfigParser.load_config_files([str(file) for file in files]))


def _text_of(
    key: str, typed: Mapping[str, str], given: Mapping[str, Any], default: object, *, current: Any
) -> str | None:
    """Return a text as it was given, or None where MONAI has it right."""
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


def _place(parser: ConfigParser, key: str, text: str, default: object) -> bool:
    """Put a text where MONAI reads it no more; return whether it has been.

    Raises:
        ConfigError: this version of MONAI would read it all the same.
    """
    if "::" not in key:
        item = parser.ref_resolver.items.get(key)
        if item is not None:  # it may be in hand already, as the first that MONAI resolves
            item.evaluate = lambda *_, **__: text
        parser.ref_resolver.resolved_content[key] = text
        kept = parser.ref_resolver.get_resolved_content(key, instantiate=False, eval_expr=False)
        if kept != text:
            raise ConfigError(
                f"{key}: MONAI {monai.__version__} does not keep texts as they are given; "
                "install a version that pyproject.toml names"
            )
        return True
    # below a component: MONAI lets a path pass as it is, and would look through a text
    plain = literal(text) == text == as_id(text) and not text.startswith(_MARKS)
    if plain or not (default is None or isinstance(default, str)):
        return False
    node, leaf = parser[key.rpartition("::")[0]], key.rpartition("::")[2]
    node[leaf if isinstance(node, dict) else int(leaf)] = Path(text)
    return True


def _check_steps(workflow: ConfigWorkflow) -> None:
    """Refuse steps that the configuration lacks; MONAI takes stray words for their names."""
    steps = {"run_id": workflow.run_id, "init_id": workflow.init_id, "final_id": workflow.final_id}
    usual = {"init_id": "initialize", "final_id": "finalize"}
    for kind, step in steps.items():
        if step in workflow.parser or step == usual.get(kind):
            continue
        if kind == "run_id":
            known = [key for key, value in workflow.parser.get().items() if isinstance(value, list)]
            raise ConfigError(f"nothing to run is called {step!r}{_did_you_mean(str(step), known)}")
        raise ConfigError(
            f"{step!r} stands alone, so MONAI takes it for the name of a step ({kind}): put "
            "quotation marks around a path with blanks, and -- before the name of a setting"
        )


def _check_tracking(parser: ConfigParser) -> None:
    """Refuse MONAI's own tracking of a training: it notes paths, and wants another output."""
    if overrides().get("tracking") is not None and "mlflow" in parser:
        raise ConfigError(
            "tracking: a training of this bundle has its own, --mlflow True, which stays in the "
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
    for settings in DEFAULT_EXP_MGMT_SETTINGS.values():  # what `--tracking` adds
        known |= {key: None for key in settings["configs"] if key not in known}
    unknown = list(_unknown_keys(parser.get(), known))
    if unknown:
        hints = [key + _did_you_mean(key, list(_all_keys(files))) for key in unknown]
        name = config_files()[0].name
        raise ConfigError(f"no such setting: {'; '.join(hints)} (set in {name})")


def _check_none(parser: ConfigParser, files: Mapping[str, Any]) -> None:
    """Refuse a None that was typed: MONAI drops it, and the key would keep its value."""
    own = {*inspect.signature(monai_run).parameters, *_PARAMETERS}
    for key, word in typed_options().items():
        if literal(word) is not None or key in own or _is_text(key, files):
            continue
        if key not in parser:
            hint = _did_you_mean(key, list(_all_keys(files)))
            raise ConfigError(f"no such setting: {key.replace('::', '#')}{hint}")
        if "::" in key or kind_of(key, _find(files, key)) is None:
            raise ConfigError(
                f"{key.replace('::', '#')} None: MONAI takes no None on the command line; write "
                "null in a configuration file of your own, and name it after the first one"
            )
        parser.ref_resolver.resolved_content[key] = None


def _check_values(parser: ConfigParser, files: Mapping[str, Any]) -> None:
    """Hold each setting, and each override of a component's argument, against its kind."""
    config, resolved = parser.get(), parser.ref_resolver.resolved_content
    for key in [key for key in config if key != "_meta_"]:
        kind = kind_of(key, _find(files, key))
        value = resolved[key] if key in resolved else config[key]
        if kind is None or (key not in resolved and _is_code(value)):
            continue
        if key not in resolved and kind.is_text and _may_be_changed(value, _find(files, key)):
            raise ConfigError(
                f"{key} {value}: MONAI writes :: for #, so which of the two is meant is not known; "
                "run it through monai.bundle.run, or take a path without either"
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
    """Return what stands below an id in a configuration's content, or None."""
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
"""What MONAI's `run_workflow` takes besides the parameters of `run`."""
