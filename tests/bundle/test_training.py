import csv
import json
import os

import pytest
import torch
from PIL import Image

from sam2unet_core.monai_parts import training_task
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import load_model, read_info, save_full
from sam2unet_core.task import Task

TORCHRUN = """
import runpy, sys
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

def bundle():
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)

config = LaunchConfig(1, 1, 2, run_id="test", rdzv_backend="c10d", rdzv_endpoint="localhost:0",
    max_restarts=0, start_method="fork")
elastic_launch(config, bundle)()
"""
"""`torchrun --standalone --nproc_per_node=2 -m monai.bundle`, but for new interpreters."""


def test_a_run_leaves_weights_with_their_task_history_and_pictures(trained):
    info = read_info(trained / "model.safetensors")
    assert info.task.name == "polyp"
    assert info.task.image_size == (64, 64)
    assert info.task.metrics["val_dice"] >= 0
    with (trained / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1.0", "2.0"]
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    assert all(0 <= float(row["val_dice"]) <= 1 for row in rows)
    for name in ("curve.png", "validation.png"):
        picture = Image.open(trained / name)
        assert len(picture.convert("RGB").getcolors(2**24) or []) > 50
    assert Task.load(trained / "task.json").name == "polyp"
    assert isinstance(load_model(trained / "model.safetensors"), SAM2UNet)


def test_nothing_is_written_into_the_bundle(trained, configs):
    assert not list(configs.parent.rglob("*.csv"))
    assert not (configs.parent / "runs").exists()


def test_checkpoint_holds_the_whole_state_of_the_run(trained):
    state = torch.load(trained / "checkpoint.pt", weights_only=True)
    assert {"network", "optimizer", "lr_scheduler", "seed", "average", "trainer"} <= set(state)
    assert any(key.endswith("running_mean") for key in state["network"])
    assert state["trainer"]["epoch_length"] == 3
    assert state["lr_scheduler"]["last_epoch"] == 2


def test_paper_recipe_is_the_default(configs):
    settings = json.loads((configs / "train.json").read_text())
    assert settings["variant"] == "large"
    assert (settings["epochs"], settings["batch_size"]) == (20, 12)
    assert (settings["learning_rate"], settings["weight_decay"]) == (1e-3, 5e-4)
    assert settings["lr_scheduler"]["eta_min"] == 1e-7
    assert settings["task_def"] == "$parts.training_task(@bundle_root, @task, @image_size)"
    assert training_task(str(configs.parent)).image_size == (352, 352)
    assert training_task(str(configs.parent), None, [64, 96]).image_size == (64, 96)


def test_a_frozen_trunk_stays_out_of_the_checkpoint_and_unchanged(
    tmp_path, dataset, task_file, small, run_verb, monkeypatch
):
    monkeypatch.setenv("SAM2UNET_CACHE", str(tmp_path / "cache"))
    start = SAM2UNet("nano")
    save_full(start, tmp_path / "start.safetensors", task=None, dtype=torch.float32)
    done = run_verb(
        "run",
        "training",
        cwd=tmp_path,
        config="train.yaml",
        dataset_dir=dataset,
        task=task_file,
        output_dir="out",
        train_trunk=False,
        weights=tmp_path / "start.safetensors",
        **small,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    saved = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["network"]
    assert not any(key.endswith("attn.qkv.weight") for key in saved)
    assert any("prompt_learn" in key for key in saved)


@pytest.mark.parametrize(
    ("settings", "overlays"),
    [
        ({"precision": "bfloat16", "ema": 0.9, "scales": [1.0, 1.5], "patience": 1}, []),
        ({"drop_path": 0.1, "gradient_checkpointing": True, "tensorboard": True}, []),
        ({}, ["strong_augmentation.yaml"]),
        ({"task": "nerve_ultrasound"}, []),
    ],
    ids=["bfloat16, EMA, scales", "drop path", "strong augmentation", "softmax"],
)
def test_options_train(settings, overlays, tmp_path, task_file, small, run_verb, configs, request):
    task = json.loads(task_file.read_text())
    dataset = request.getfixturevalue("two_class_dataset" if settings.get("task") else "dataset")
    if settings.get("task"):
        preset = json.loads((configs / "tasks" / "nerve_ultrasound.json").read_text())
        task |= {key: preset[key] for key in ("name", "classes", "activation")}
    (tmp_path / "task.json").write_text(json.dumps(task))
    done = run_verb(
        "run",
        "training",
        cwd=tmp_path,
        config=["train.yaml", *overlays],
        dataset_dir=dataset,
        output_dir="out",
        **(small | settings | {"task": tmp_path / "task.json"}),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()
    if settings.get("tensorboard"):
        assert list((tmp_path / "out" / "tensorboard").rglob("events.out.*"))


@pytest.mark.parametrize("size", ["[64,64]", "[32,32]"])
def test_a_last_batch_of_one_frame_trains(size, tmp_path, dataset, small, run_verb):
    (tmp_path / "out#1").mkdir()
    done = run_verb(
        "run",
        "training",
        cwd=tmp_path,
        config="train.yaml",
        dataset_dir=dataset,
        image_size=size,
        output_dir="out#1",
        **(small | {"val_fraction": 0.2, "batch_size": 4}),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    state = torch.load(tmp_path / "out#1" / "checkpoint.pt", weights_only=True)
    # 13 training frames: 4, 4, 4, 1; of one pixel in the coarsest map 4, 4, 5
    assert state["trainer"]["epoch_length"] == {"[64,64]": 4, "[32,32]": 3}[size]


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.01, ("15 training, 1 validation", 4)), (0.25, ("12 training, 4 validation", 3))],
    ids=["one frame to validate", "several"],
)
def test_two_processes_train_and_validate_together_over_gloo(
    share, expected, tmp_path, dataset, task_file, small, configs, run_python
):
    """Each takes 2 frames a step."""
    (tmp_path / "torchrun.py").write_text(TORCHRUN)
    words = in_two_processes(dataset, task_file, small | {"val_fraction": share}, configs)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "-1"}
    done = run_python("torchrun.py", *words, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    split, steps = expected
    assert f"{split} frames" in done.stdout
    state = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    assert state["trainer"]["epoch_length"] == steps
    assert (tmp_path / "out" / "validation.png").is_file()
    with (tmp_path / "out" / "history.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    measured = read_info(tmp_path / "out" / "model.safetensors").task.metrics["val_dice"]
    assert float(row["val_dice"]) == measured
    assert 0 <= measured <= 1


def in_two_processes(dataset, task_file, settings, configs):
    """Return the words after `monai.bundle` of two processes that train together."""
    files = [str(configs / "train.yaml"), str(configs / "multi_gpu_train.yaml")]
    words = ["run", "training", "--config_file", str(files)]
    words += ["--dataset_dir", str(dataset), "--task", str(task_file), "--output_dir", "out"]
    words += ["--batch_size", "2"]
    for key in ("variant", "epochs", "val_fraction", "num_workers"):
        words += [f"--{key}", str(settings[key])]
    return words
