"""A run that is killed and continued ends as one that was not."""

import os
import signal
import subprocess

import torch

KILLER = """
import os, signal
from ignite.engine import Events

class KillInEpochTwo:
    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
    def __call__(self, engine):
        if engine.state.epoch == 2 and engine.state.iteration % engine.state.epoch_length == 2:
            os.kill(os.getpid(), signal.SIGKILL)
"""
OVERLAY = """
"+train#handlers":
  - _target_: killer.KillInEpochTwo
"""


def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path, dataset, task_file, small, run_verb, monkeypatch
):
    (tmp_path / "killer.py").write_text(KILLER)
    (tmp_path / "kill.yaml").write_text(OVERLAY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    settings = small | {
        "dataset_dir": dataset,
        "task": task_file,
        "epochs": 3,
        "num_workers": 2,
        "ema": 0.8,
        "drop_path": 0.2,
        "patience": 5,
        "scales": [1.0, 1.5],
    }
    configs = ["train.yaml", "strong_augmentation.yaml"]

    def train(folder: str, *overlays: str, **more: object) -> "subprocess.CompletedProcess[str]":
        return run_verb(
            "run",
            "training",
            cwd=tmp_path,
            config=[*configs, *overlays],
            output_dir=folder,
            **(settings | more),
        )

    whole = train("whole")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    killed = train("parts", str(tmp_path / "kill.yaml"))
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    saved = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
    assert saved["trainer"]["iteration"] == saved["trainer"]["epoch_length"]
    resumed = train("parts", resume=True)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr

    expected = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)
    found = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
    assert_equal(found, expected, "checkpoint")
    assert expected["average"]
    for name in ("history.csv", "model.safetensors"):
        parts, one = ((tmp_path / f / name).read_bytes() for f in ("parts", "whole"))
        assert parts == one, name


def assert_equal(found: object, expected: object, where: str) -> None:
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key, value in expected.items():
            assert_equal(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for index, value in enumerate(expected):
            assert_equal(found[index], value, f"{where}[{index}]")
    else:
        assert found == expected, where
