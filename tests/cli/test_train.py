import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from sam2unet_core.cli import app
from sam2unet_core.errors import ConfigError
from sam2unet_core.phantom import write_dataset


@pytest.fixture
def run_train(run_python, monkeypatch, tmp_path):
    """Run `sam2unet train ...` in `tmp_path`; give its result and that of the line it runs."""
    ran = []

    def run(command, *, check):
        assert command[0] == sys.executable
        ran.append(run_python(*command[1:]))
        return ran[-1]

    def call(*words):
        done = CliRunner().invoke(app, ["train", *words], catch_exceptions=False)
        return done, ran[-1]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sam2unet_core.cli.train.subprocess", SimpleNamespace(run=run))
    return call


def test_train_takes_a_task_file(tmp_path, run_train):
    from sam2unet_core.task import load_preset

    load_preset("skin_lesion").save(tmp_path / "own.json")
    done, ran = run_train("--data", "nowhere", "-o", "run", "--task", "own.json")
    assert "--task own.json" in done.stdout
    assert done.exit_code == 2
    assert "nowhere" in ran.stderr


def test_train_passes_on_the_exit_code_of_a_failed_run(run_train):
    done, ran = run_train("--data", "nowhere", "-o", "run")
    assert done.exit_code == ran.returncode != 0
    assert "nowhere" in ran.stderr


@pytest.fixture
def train(monkeypatch):
    """The words of the line that `sam2unet train ...` prints and runs."""
    ran = []

    def run(command, **_):
        ran.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("sam2unet_core.cli.train.subprocess.run", run)

    def call(*words):
        done = CliRunner().invoke(app, ["train", *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert shlex.split(done.output) == ran[-1]
        return ran[-1]

    return call


def test_every_text_of_the_line_is_one_to_fire(train):
    from fire.parser import DefaultParseValue

    for odd in ("2024", "set#2", "None", "a,b", "[x]", "1e5", "True", "it's", '"x"', "{a}"):
        words = train("--data", odd, "-o", odd)
        for key in ("--dataset_dir", "--output_dir"):
            assert DefaultParseValue(words[words.index(key) + 1]) == odd


def test_a_path_that_means_something_to_monai_is_written_so_that_it_does_not(train):
    words = train("--data=$x", "-o", "@epochs", "--weights=%x", "--groups", "%y")
    assert words[words.index("--dataset_dir") + 1] == "./$x"
    assert words[words.index("--output_dir") + 1] == "./@epochs"
    assert words[-3:] == ["--weights=./%x", "--groups", "./%y"]
    assert "--dataset_dir ./-x" in shlex.join(train("--data=-x", "-o", "out"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dataset_dir", "b"), "--dataset_dir: same as --data"),
        (("--output-dir=b",), "--output-dir: same as --output"),
        (("b",), "'b' belongs to no option"),
        (("--epochs", "3", "b"), "'b' belongs to no option"),
        (("--groups", "a@##b"), "setting a@##b: MONAI cannot handle"),
        (("--groups", ""), "empty argument after --groups"),
        (("--groups=",), "empty argument after --groups"),
    ],
)
def test_a_word_that_would_be_taken_for_something_else_is_refused(words, message, train):
    with pytest.raises(ConfigError, match=message):
        train("--data", "a", "-o", "out", *words)


@pytest.mark.parametrize("word", ["", " "])
@pytest.mark.parametrize("command", ["train", "segment", "evaluate", "phantom", "demo"])
def test_an_empty_path_is_not_the_working_directory(command, word):
    with pytest.raises(
        ConfigError, match=r"empty argument after .*check the variables of your shell"
    ):
        CliRunner().invoke(app, [command, "x", "--output", word], catch_exceptions=False)


def test_the_data_set_with_a_hash_is_the_one_that_is_trained_on(tmp_path, run_train, run_python):
    write_dataset(tmp_path / "set", frames=4, seed=1, size=(64, 64))
    write_dataset(tmp_path / "set#2", frames=7, seed=1, size=(64, 64))
    words = ["--data", "set#2", "-o", "1.10", "--variant", "nano", "--epochs", "1"]
    words += ["--batch_size", "4", "--num_workers", "0"]
    words += ["--val_fraction", "0.3", "--image_size", "[64,64]"]
    done, ran = run_train(*words)
    assert done.exit_code == 0, ran.stdout + ran.stderr
    assert " -m monai.bundle run training --config_file " in done.stdout.splitlines()[0]
    assert "5 training, 2 validation frames" in ran.stdout
    assert (tmp_path / "1.10" / "model.safetensors").is_file()
    assert not (tmp_path / "1.1").exists()
    # the printed line does the same where it is copied to a shell
    line = done.stdout.splitlines()[0].replace("1.10", "2024_01_02")
    as_words = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True
    )
    _, *words = as_words.stdout.splitlines()
    again = run_python(*words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "2024_01_02" / "model.safetensors").is_file()
