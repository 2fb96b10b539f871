"""What MONAI was called with is found whatever its variables are called, or missed aloud."""

from __future__ import annotations

import sys
import types
import warnings

import fire
import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from sam2unet_core.errors import ConfigError
from sam2unet_core.monai_parts import callers
from sam2unet_core.monai_parts.overrides import check_overrides, keep_texts

RENAMED = """
def start(config_file, **changes):
    flow = ConfigWorkflow(config_file, logging_file=False, **changes)
    flow.initialize()
    return flow
"""
OTHER_PARAMETER = """
def start(files, changes):
    flow = ConfigWorkflow(files, logging_file=False, **changes)
    flow.initialize()
    return flow
"""


def of_monai(source: str) -> types.FunctionType:
    """Return `start` of a module that passes for one of MONAI's."""
    names = {"__name__": "monai.bundle.future", "ConfigWorkflow": ConfigWorkflow}
    exec(source, names)
    return names["start"]


def test_overrides_are_found_under_any_name_of_a_local_variable(configs):
    start = of_monai(RENAMED)
    with pytest.raises(RuntimeError) as caught:
        start(str(configs / "train.yaml"), epoch=3)
    assert isinstance(caught.value.__cause__, ConfigError)
    message = "no such setting: epoch (did you mean epochs?); see train.yaml"
    assert str(caught.value.__cause__) == message
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parser = start(str(configs / "train.yaml"), dataset_dir="set#2").parser
    assert parser.get_parsed_content("dataset_dir") == "set#2"


def test_files_that_no_caller_names_are_warned_of(configs):
    start = of_monai(OTHER_PARAMETER)
    message = "unknown settings are not detected: no configuration file .* MONAI 1"
    with pytest.warns(UserWarning, match=message):
        start(str(configs / "train.yaml"), {"epoch": 3})


def test_the_command_line_names_the_files_where_no_caller_does(configs, monkeypatch):
    words = ["monai.bundle", "start", "--config_file", str(configs / "train.yaml"), "--epoch", "3"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(callers, "is_command_line", lambda: True)
    start = of_monai(OTHER_PARAMETER)
    with pytest.raises(RuntimeError) as caught:
        fire.Fire({"start": lambda config_file, **more: start(config_file, more)}, words[1:])
    assert "no such setting: epoch" in str(caught.value.__cause__)


def test_a_workflow_that_is_not_among_the_callers_is_warned_of(configs):
    with pytest.warns(UserWarning, match="settings are not checked: no workflow was found"):
        check_overrides()
    with pytest.warns(
        UserWarning, match="paths and names are not kept .*: no configuration was found"
    ):
        assert keep_texts() == ()
    parser = ConfigParser()
    parser.read_config(str(configs / "train.yaml"))
    with pytest.warns(UserWarning, match="settings are not checked: no workflow was found"):
        parser.get_parsed_content("initialize::1")
