"""Paths and names reach the bundle as typed, whatever Python or MONAI would read in them."""

from __future__ import annotations

import functools
import json
import logging
import sys
from pathlib import Path

import fire
import pytest
import yaml
from monai.bundle import ConfigWorkflow, ReferenceResolver
from monai.bundle import run as monai_run

from sam2unet_core.cli.train import bundle_command
from sam2unet_core.errors import ConfigError
from sam2unet_core.monai_parts import callers
from sam2unet_core.monai_parts.settings import SETTINGS

CONFIGURATIONS = ("train", "evaluate", "inference")
STEPS = ("imports", "initialize", "finalize")
CLOSED = ("variant", "precision", "runtime")
"""Names of which the bundle knows all there are: another is refused."""
ODD = (
    "set#2", "#", "2024", "2024_01_02", "1.10", "1e5", "0x10", "None", "True", "null", "a,b", "[x]",
    "(x)", "{a}", "{a: b}", "b'x'", "...", "a b", "it's", 'say "x"', "back\\slash", "Größe", "x::y",
    "$x", "$__import__('sys').exit(3)", "$import absent_module", "$import not python", "@epochs",
    "@x#y", "a@#b", "me@home", "50%", "é\udce9",
)  # fmt: skip


@pytest.fixture
def typed(monkeypatch, configs):
    """Run `python -m monai.bundle run ...` up to its first step, and return the workflow.

    From the JSON where there is one: it is read in less time than the YAML, and holds the same.
    """
    monkeypatch.setattr(callers, "is_command_line", lambda: True)
    monkeypatch.setattr(logging.Logger, "warning", lambda *_: None)
    seen: list[ConfigWorkflow] = []
    monkeypatch.setattr(ConfigWorkflow, "run", lambda self: seen.append(self))  # noqa: PLW0108

    def run(words: list[str], *, config: str | None = None) -> ConfigWorkflow:
        if config is not None:
            json_file, yaml_file = (configs / f"{config}.{kind}" for kind in ("json", "yaml"))
            file = json_file if json_file.exists() else yaml_file
            words = ["run", "--config_file", str(file), *words]
        monkeypatch.setattr(sys, "argv", ["monai.bundle", *words, "--logging_file=False"])
        with pytest.warns(UserWarning, match="parsing config_file"):
            fire.Fire({"run": monai_run}, command=sys.argv[1:])
        return seen.pop()

    return run


@functools.cache
def settings_of(config: str, configs: Path) -> dict[str, object]:
    """The keys at the top of a configuration that a person may set."""
    content = yaml.safe_load((configs / f"{config}.yaml").read_text())
    return {
        key: value
        for key, value in content.items()
        if key not in STEPS
        and not isinstance(value, dict)
        and not (isinstance(value, list) and isinstance(value[0], dict | str))
        and not (isinstance(value, str) and value.startswith("$"))
    } | {key: content[key] for key in ("bundle_root", "device", "trunk") if key in content}


def texts_of(config: str, configs: Path) -> list[str]:
    return [key for key in settings_of(config, configs) if SETTINGS[key].is_text]


@pytest.mark.parametrize("config", CONFIGURATIONS)
def test_every_setting_of_the_configurations_is_in_the_table(config, configs):
    assert set(settings_of(config, configs)) <= set(SETTINGS)
    texts = set(texts_of(config, configs))
    assert {"bundle_root", "dataset_dir", "output_dir", "task", "weights"} <= texts


@pytest.mark.parametrize("config", CONFIGURATIONS)
@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_every_path_and_name_is_what_was_typed(config, odd, typed, configs):
    texts = [key for key in texts_of(config, configs) if key not in CLOSED]
    words = []
    for number, key in enumerate(texts):  # each of the ways in which fire takes an option
        ways = [f"--{key}={odd}"], [f"--{key}", odd], [f"-{key}", odd]
        words += ways[number % len(ways)]
    parser = typed(words, config=config).parser
    assert {key: parser.get_parsed_content(key) for key in texts} == dict.fromkeys(texts, odd)


@pytest.mark.parametrize("odd", ["-x", "--", "-"])
def test_a_text_that_begins_like_an_option_follows_an_equals_sign(odd, typed):
    parser = typed([f"--dataset_dir={odd}", f"-output_dir={odd}"], config="train").parser
    assert parser.get_parsed_content("dataset_dir") == odd
    assert parser.get_parsed_content("output_dir") == odd


def test_a_text_in_the_quotes_of_python_loses_them(typed):
    words = ["--dataset_dir", '"set#2"', "--output_dir", "'2024'", "--weights", '"it\'s"']
    parser = typed(words, config="train").parser
    assert parser.get_parsed_content("dataset_dir") == "set#2"
    assert parser.get_parsed_content("output_dir") == "2024"
    assert parser.get_parsed_content("weights") == "it's"


@pytest.mark.parametrize("key", CLOSED)
@pytest.mark.parametrize("odd", ["set#2", "2024", "$x", "@epochs", "None"])
def test_a_name_that_is_none_of_the_known_is_refused_as_typed(key, odd, typed, configs):
    config = "train" if key in settings_of("train", configs) else "inference"
    with pytest.raises(RuntimeError) as caught:
        typed([f"--{key}={odd}"], config=config)
    assert isinstance(caught.value.__cause__, ConfigError)
    assert odd in str(caught.value.__cause__)


def test_a_text_that_monai_would_read_all_the_same_is_refused(typed, monkeypatch):
    found = ReferenceResolver.get_resolved_content

    def forgetful(self, *given, **options):
        return object() if options.get("eval_expr") is False else found(self, *given, **options)

    monkeypatch.setattr(ReferenceResolver, "get_resolved_content", forgetful)
    with pytest.raises(RuntimeError) as caught:
        typed(["--dataset_dir=$exit(3)"], config="train")
    assert "dataset_dir: MONAI 1" in str(caught.value.__cause__)


def test_components_get_the_text_as_typed(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workflow = typed(["--dataset_dir=set#2", "--groups=1.10", "--output_dir", "@a"], config="train")
    split = workflow.parser.get_parsed_content("split", instantiate=False).resolve_args()
    assert (split["dataset_dir"], split["groups"]) == ("set#2", "1.10")
    assert workflow.parser.get_parsed_content("run_dir") == "@a"


def test_a_path_below_a_component_is_what_was_typed(typed):
    words = ["--split#dataset_dir", "set#2", "--train#handlers#0#weights", "2024"]
    workflow = typed([*words, "--split#groups=$exit(3)"], config="train")
    split = workflow.parser.get_parsed_content("split", instantiate=False).resolve_args()
    assert (split["dataset_dir"], split["groups"]) == (Path("set#2"), Path("$exit(3)"))
    assert workflow.parser["train::handlers::0::weights"] == Path("2024")


def test_what_a_file_holds_keeps_its_hash_and_its_expressions(typed, tmp_path, configs):
    overlay = tmp_path / "own.yaml"
    overlay.write_text("dataset_dir: set#2\noutput_dir: $'run' + str(@epochs)\n")
    files = str([str(configs / "train.yaml"), str(overlay)])
    parser = typed(["run", "--config_file", files]).parser
    assert parser.get_parsed_content("dataset_dir") == "set#2"
    assert parser.get_parsed_content("output_dir") == "run20"


@pytest.mark.parametrize(("value", "shown"), [("2024", "2024"), ("1.10", "1.1"), ("yes", "True")])
def test_a_number_for_a_path_in_a_file_is_refused(value, shown, typed, tmp_path, configs):
    overlay = tmp_path / "own.yaml"
    overlay.write_text(f"weights: {value}\n")
    with pytest.raises(RuntimeError) as caught:
        typed(["run", "--config_file", str([str(configs / "train.yaml"), str(overlay)])])
    found = "without a value" if shown == "True" else shown
    assert str(caught.value.__cause__) == f"weights {found}: expected a path"


def test_an_arguments_file_and_a_program_give_texts_too(monkeypatch, configs, tmp_path):
    monkeypatch.setattr(logging.Logger, "warning", lambda *_: None)
    seen: list[ConfigWorkflow] = []
    monkeypatch.setattr(ConfigWorkflow, "run", lambda self: seen.append(self))  # noqa: PLW0108
    arguments = tmp_path / "arguments.json"
    arguments.write_text(json.dumps({"dataset_dir": "set#2", "groups": "$x"}))
    config = str(configs / "train.yaml")
    options = {"args_file": str(arguments), "output_dir": Path("run#1"), "weights": "@a"}
    with pytest.warns(UserWarning, match="parsing config_file"):
        monai_run(config_file=config, logging_file=False, **options)
    parser = seen[0].parser
    found = [
        parser.get_parsed_content(k) for k in ("dataset_dir", "groups", "output_dir", "weights")
    ]
    assert found == ["set#2", "$x", "run#1", "@a"]


def test_a_workflow_that_cannot_tell_a_hash_from_two_colons_says_so(configs):
    workflow = ConfigWorkflow(
        str(configs / "train.yaml"), logging_file=False, dataset_dir="set#2", workflow_type="train"
    )
    with pytest.raises(RuntimeError) as caught:
        workflow.initialize()
    assert "dataset_dir set::2: MONAI replaces # with ::" in str(caught.value.__cause__)


def test_a_name_is_text_to_the_verbs_that_take_no_first_step(monkeypatch, configs):
    from monai.bundle import ConfigParser

    ran = []
    monkeypatch.setattr(callers, "is_command_line", lambda: True)
    monkeypatch.setattr(sys, "argv", ["x", "ckpt_export", "--bundle_root", "$ran.append(1)"])
    parser = ConfigParser(globals={"ran": ran})
    parser.read_config(str(configs / "inference.yaml"))
    parser["bundle_root"] = "$ran.append(1)"
    # which only works below MONAI's own functions: the parser is found among its callers
    assert parser.get_parsed_content("bundle_root") == "$ran.append(1)"
    assert ran == []


@pytest.mark.parametrize("odd", [*ODD, "%epochs", "-x", "'x'", '"x"'], ids=ascii)
def test_the_line_that_is_printed_gives_the_text_that_was_meant(odd, typed):
    words = bundle_command("train.yaml", "training", {"dataset_dir": odd, "section": 5})[3:]
    words = words[: words.index("--section")]
    found = typed(words).parser.get_parsed_content("dataset_dir")
    assert Path(found) == Path(odd)
