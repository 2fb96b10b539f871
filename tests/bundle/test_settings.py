"""What a setting may be: one line says what was got and what is expected."""

from __future__ import annotations

import datetime

import pytest
import torch

from sam2unet_core.errors import ConfigError
from sam2unet_core.monai_parts.settings import SETTINGS, kind_of

WHOLE = "expected a whole number from"
WRONG = [
    ("image_size", 64, "image_size 64: expected two whole numbers from 32, [height, width]"),
    ("image_size", [64], "image_size [64]: expected two whole numbers"),
    ("image_size", [64, 64.5], "image_size [64, 64.5]: expected two whole numbers"),
    ("image_size", [16, 64], "image_size [16, 64]: expected two whole numbers from 32"),
    ("image_size", "64x64", "image_size 64x64: expected two whole numbers"),
    ("batch_size", "abc", f"batch_size abc: {WHOLE} 1"),
    ("batch_size", 0, f"batch_size 0: {WHOLE} 1"),
    ("batch_size", True, f"batch_size True: {WHOLE} 1"),
    ("batch_size", 8.0, f"batch_size 8.0: {WHOLE} 1"),
    ("epochs", -1, f"epochs -1: {WHOLE} 1"),
    ("epochs", None, f"epochs None: {WHOLE} 1"),
    ("epochs", "", f"epochs '': {WHOLE} 1"),
    ("num_workers", 1.5, f"num_workers 1.5: {WHOLE} 0"),
    ("seed", -1, f"seed -1: {WHOLE} 0 to 4294967295"),
    ("patience", [3], f"patience [3]: {WHOLE} 0"),
    ("learning_rate", "1e-3x", "learning_rate 1e-3x: expected a number above 0"),
    ("learning_rate", 0, "learning_rate 0: expected a number above 0"),
    ("learning_rate", "nan", "learning_rate nan: expected a number above 0"),
    ("learning_rate", float("inf"), "learning_rate inf: expected a number above 0"),
    ("learning_rate", (0, 1), "learning_rate (0, 1): expected a number above 0"),
    ("weight_decay", -0.1, "weight_decay -0.1: expected a number of at least 0"),
    ("val_fraction", 2, "val_fraction 2: expected a fraction from 0 to 1"),
    ("ema", 1, "ema 1: expected a number from 0 to below 1"),
    ("scales", 1.25, "scales 1.25: expected a list of factors above 0"),
    ("scales", [], "scales []: expected a list of factors above 0"),
    ("scales", [1, 0], "scales [1, 0]: expected a list of factors above 0"),
    ("precision", "half", "precision half: expected one of float32, bfloat16, float16"),
    ("runtime", "quick", "runtime quick: expected one of auto, exact, fast, openvino, onnx"),
    ("variant", "huge", "unknown variant 'huge'; choose from nano, starter, tiny"),
    ("resume", 1, "resume 1: expected True or False"),
    ("train_trunk", "yes", "train_trunk yes: expected True, False or None"),
    ("device", "gpu", "device 'gpu': not a device; use auto, cpu, cuda, cuda:N or mps"),
    ("device", "meta", "device 'meta': not a device; use auto, cpu, cuda, cuda:N or mps"),
    ("device", 0, "device 0: expected auto, cpu, cuda, cuda:N or mps"),
    ("dataset_dir", 2024, "dataset_dir 2024: expected a path"),
    ("dataset_dir", " ", "dataset_dir ' ': expected a path"),
    ("dataset_dir", True, "dataset_dir without a value: expected a path"),
    ("output_dir", datetime.date(2024, 1, 2), "output_dir datetime.date(2024, 1, 2): expected a"),
    ("task", ["polyp"], "task ['polyp']: expected the name of a task or a task.json"),
]


@pytest.mark.parametrize(("key", "given", "message"), WRONG, ids=str)
def test_a_value_that_cannot_be_says_what_was_got_and_expected(key, given, message):
    with pytest.raises(ConfigError) as caught:
        SETTINGS[key].value(key, given)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("image_size", (64, 96), [64, 96]),
        ("image_size", None, None),
        ("epochs", "3", 3),
        ("learning_rate", "1e-3", 0.001),  # YAML reads it as text
        ("scales", (1, 1.25), [1.0, 1.25]),
        ("gradient_checkpointing", True, True),
        ("gradient_checkpointing", 0.5, 0.5),
        ("val_fraction", 0, 0.0),  # the split has its own say, where it is used
        ("device", "cpu", torch.device("cpu")),
        ("device", torch.device("cpu"), torch.device("cpu")),
        ("weights", None, None),
        ("train_trunk", None, None),
    ],
    ids=str,
)
def test_a_value_that_can_be_is_what_the_setting_needs(key, given, value):
    found = SETTINGS[key].value(key, given)
    assert found == value
    assert type(found) is type(value)


def test_the_device_auto_is_one_that_is_there():
    assert SETTINGS["device"].value("device", "auto").type in ("cpu", "cuda", "mps")


def test_a_cuda_device_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="device 'cuda': this machine has none; use auto or cpu"):
        SETTINGS["device"].value("device", "cuda")


def test_arguments_of_components_and_strangers_have_kinds_too():
    assert kind_of("train::trainer::max_epochs") is SETTINGS["epochs"]
    assert kind_of("optimizer::lr") is SETTINGS["learning_rate"]
    assert kind_of("optimizer::betas") is None
    assert kind_of("colour", default="red").is_text
    assert kind_of("colour", default="$code()") is None
    with pytest.raises(ConfigError, match="depth abc: expected a number"):
        kind_of("depth", default=3).value("depth", "abc")
    assert kind_of("depth", default=3).value("depth", 5) == 5
