"""The valid values of each setting of the bundle's configurations, in one table."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sam2unet_core.errors import ConfigError
from sam2unet_core.inference.runtimes import RUNTIME_NAMES
from sam2unet_core.inference.runtimes.torch_runtime import choose_device
from sam2unet_core.monai_parts.training import PRECISIONS
from sam2unet_core.network.variants import find_variant


@dataclass(frozen=True)
class SettingKind:
    """The kind of value that a setting takes.

    Attributes:
        expected: description of valid values, for error messages.
        read: converts a value; raises a ValueError or TypeError if it is invalid.
        is_text: whether it is a path or a name: taken literally, never parsed or evaluated.
        optional: whether None is valid.
    """

    expected: str
    read: Callable[[Any], object]
    is_text: bool = False
    optional: bool = False

    def value(self, key: str, given: object) -> object:
        """Check and convert a value.

        Args:
            key: the setting, for the message.
            given: the value in the configuration or on the command line.

        Raises:
            ConfigError: the value is invalid.
        """
        if given is None and self.optional:
            return None
        try:
            return self.read(given)
        except (ValueError, TypeError, OverflowError) as error:
            shown = given if isinstance(given, str) and given.strip() else repr(given)
            if self.is_text and given is True:  # as fire parses an option without a value
                shown = "without a value"
            raise ConfigError(f"{key} {shown}: expected {self.expected}") from error


def kind_of(key: str, default: object = None) -> SettingKind | None:
    """Return the kind of a setting, or None if it is not known.

    Args:
        key: its id, such as `epochs` or `train::trainer::max_epochs`; only the last part counts.
        default: its value in the configuration file. It determines the kind of a setting that is
            not in the table: text, a number, or True and False.
    """
    name = key.rsplit("::", 1)[-1]
    name = _OTHER_NAMES.get(name, name)
    if name in SETTINGS:
        return SETTINGS[name]
    if "::" in key or (isinstance(default, str) and default[:1] in ("$", "@", "%")):
        return None
    return _BY_DEFAULT.get(type(default))


def _read_text(value: Any) -> str:
    text = os.fspath(value)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(text)
    return text


def _read_truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _like(kinds: tuple[type, ...]) -> Callable[[Any], object]:
    """Return a check that accepts values of these types unchanged."""

    def read(value: Any) -> object:
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise TypeError(value)
        return value

    return read


def _whole(low: int, high: float = math.inf) -> SettingKind:
    upper = f" to {high:.0f}" if math.isfinite(high) else ""
    return SettingKind(
        f"a whole number from {low}{upper}", lambda value: _read_whole(value, low, high)
    )


def _read_whole(value: Any, low: int, high: float = math.inf) -> int:
    """Return a whole number; it may be given as text."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(value)
    number = int(value)
    if not low <= number <= high:
        raise ValueError(number)
    return number


def _number(expected: str, accepts: Callable[[float], bool]) -> SettingKind:
    return SettingKind(expected, lambda value: _read_number(value, accepts))


def _read_number(value: Any, accepts: Callable[[float], bool]) -> float:
    """Return a finite number; it may be given as text, which 1e-3 is in YAML."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(value)
    number = float(value)
    if not math.isfinite(number) or not accepts(number):
        raise ValueError(number)
    return number


def _choice(names: Sequence[str]) -> SettingKind:
    def read(value: Any) -> str:
        if value not in names:
            raise ValueError(value)
        return str(value)

    return SettingKind(f"one of {', '.join(names)}", read, is_text=True)


def _read_sides(value: Any) -> list[int]:
    if isinstance(value, str) or len(value) != 2:
        raise TypeError(value)
    return [_read_whole(each, 32) for each in value]


def _read_factors(value: Any) -> list[float]:
    if isinstance(value, str | dict) or not len(value):
        raise TypeError(value)
    return [_read_number(each, lambda x: x > 0) for each in value]


def _read_device(value: Any) -> object:
    if isinstance(value, bool | int | float):
        raise TypeError(value)
    return choose_device(str(value))


def _read_variant(value: Any) -> str:
    return find_variant(_read_text(value)).name


_PATH = SettingKind("a path", _read_text, is_text=True)
_OPEN_PATH = replace(_PATH, optional=True)
_NAME = SettingKind("a name", _read_text, is_text=True)
_OPEN_NAME = replace(_NAME, optional=True)
_TRUTH = SettingKind("True or False", _read_truth)
_ABOVE_0 = _number("a number above 0", lambda x: x > 0)
_FROM_0 = _number("a number of at least 0", lambda x: x >= 0)
_FRACTION = _number("a fraction from 0 to 1", lambda x: 0 <= x <= 1)
_BELOW_1 = _number("a number from 0 to below 1", lambda x: 0 <= x < 1)

SETTINGS: dict[str, SettingKind] = {
    # data
    "bundle_root": _PATH,
    "dataset_dir": _PATH,
    "datalist": _OPEN_PATH,
    "section": _NAME,
    "groups": _OPEN_PATH,
    "val_dataset_dir": _OPEN_PATH,
    "val_fraction": _FRACTION,
    "folds": _whole(0),
    "fold": _whole(0),
    "task": SettingKind(
        "the name of a task or a task.json", _read_text, is_text=True, optional=True
    ),
    "image_size": SettingKind(
        "two whole numbers from 32, [height, width], such as [352, 352]", _read_sides, optional=True
    ),
    # network
    "variant": SettingKind("a size of the network", _read_variant, is_text=True),
    "train_trunk": replace(_TRUTH, expected="True, False or None", optional=True),
    "weights": _OPEN_PATH,
    "trunk": _OPEN_PATH,
    "gradient_checkpointing": replace(
        _FRACTION, read=lambda value: value if isinstance(value, bool) else _FRACTION.read(value)
    ),
    "drop_path": _BELOW_1,
    # recipe
    "epochs": _whole(1),
    "batch_size": _whole(1),
    "learning_rate": _ABOVE_0,
    "weight_decay": _FROM_0,
    "clip_norm": _FROM_0,
    "weighted_bce": _TRUTH,
    "scales": SettingKind("a list of factors above 0, such as [1.0, 1.25]", _read_factors),
    "ema": _BELOW_1,
    "precision": _choice(tuple(PRECISIONS)),
    "patience": _whole(0),
    "val_interval": _whole(1),
    "seed": _whole(0, 2**32 - 1),
    "num_workers": _whole(0),
    "cache_rate": _FRACTION,
    # run
    "output_dir": _OPEN_PATH,
    "resume": _TRUTH,
    "tensorboard": _TRUTH,
    "mlflow": _TRUTH,
    "overlays": _TRUTH,
    "probabilities": _TRUTH,
    "device": SettingKind("auto, cpu, cuda, cuda:N or mps", _read_device),
    "runtime": _choice(RUNTIME_NAMES),
    # MONAI's --tracking
    "tracking_uri": _OPEN_NAME,
    "experiment_name": _OPEN_NAME,
    "run_name": _OPEN_NAME,
}
"""By key. A test checks that every setting of the bundle's files is here."""

_OTHER_NAMES = {
    "max_epochs": "epochs",
    "lr": "learning_rate",
    "file": "weights",
    "weights_file": "weights",
    "run_dir": "output_dir",
}
"""Names that components use for the same setting."""

_BY_DEFAULT: dict[type, SettingKind] = {
    str: SettingKind("a text", _read_text, is_text=True),
    bool: _TRUTH,
    int: SettingKind("a number", _like((int, float))),
    float: SettingKind("a number", _like((int, float))),
}
