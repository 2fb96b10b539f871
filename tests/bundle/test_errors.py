"""What a user gets wrong ends in one line that says so, before any training."""

import os

import pytest
import torch
from PIL import Image

from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import save_full


def refused(done):
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "no such setting: epoch (did you mean epochs?)"),
        ({"train#epochs": 3}, "no such setting: train#epochs"),
        ({"dataset_dir": "nowhere"}, "nowhere"),
        ({"val_fraction": 0.0}, "validation"),
        ({"variant": "huge"}, "unknown variant 'huge'"),
        ({"task": "moon"}, "unknown task 'moon'"),
        ({"precision": "float16"}, "float16 needs CUDA"),
        ({"resume": True}, "--output_dir"),
        ({"resume": "false"}, "resume false: taken as text on the command line; write True, False"),
        ({"val_interval": 5}, "val_interval 5"),
        ({"weights": "absent.safetensors"}, "absent.safetensors"),
        ({"image_size": 64}, "image_size 64: expected two whole numbers from 32, [height, width]"),
        ({"batch_size": "abc"}, "batch_size abc: expected a whole number from 1"),
        ({"device": "cuda"}, "device 'cuda': this machine has none; use auto or cpu"),
        ({"image_size": "[32,32]", "batch_size": 1}, "batch_size 1 with images of 32 x 32"),
        ({"train#trainer#max_epochs": 1.5}, "train#trainer#max_epochs 1.5: expected a whole"),
        ({"image_size": None, "epochs": None}, "epochs None: expected a whole number from 1"),
        ({"optimizer#lr": None}, "optimizer#lr None: MONAI ignores None on the command line"),
        ({"weight": None}, "no such setting: weight (did you mean weights?)"),
        ({"tracking": "mlflow", "output_dir": "out"}, "--mlflow True"),
        ({"output_dir": "file"}, "file: file exists"),
        ({"dataset_dir": "$print('evaluated')"}, "$print('evaluated'): no such folder"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_setting_is_one_line(
    settings, message, tmp_path, dataset, task_file, small, run_verb
):
    (tmp_path / "file").touch()
    options = {"dataset_dir": dataset, "task": task_file} | small | settings
    done = run_verb("run", "training", cwd=tmp_path, config="train.json", **options)
    assert message in refused(done)
    assert not (tmp_path / "runs").exists()


def test_an_error_ends_the_program_as_python_does(tmp_path, small, run_verb, monkeypatch):
    """What is closed at a program's end, such as logs and runs of MLflow, is closed."""
    (tmp_path / "closing.py").write_text("import atexit\natexit.register(print, 'closed')\n")
    (tmp_path / "closing.yaml").write_text('"+imports": ["$import closing"]\n')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    configs = ["train.yaml", str(tmp_path / "closing.yaml")]
    done = run_verb("run", "training", cwd=tmp_path, config=configs, dataset_dir="no", **small)
    assert refused(done).startswith("Error: no: no such folder")
    assert done.stdout.splitlines()[-1] == "closed"


def test_empty_and_unpaired_data_are_named_before_training(tmp_path, task_file, small, run_verb):
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    options = {"dataset_dir": tmp_path / "data", "task": task_file} | small
    done = run_verb("run", "training", cwd=tmp_path, config="train.yaml", **options)
    assert "data" in refused(done)
    for name in ("a", "b"):
        Image.new("RGB", (64, 64)).save(tmp_path / "data" / "images" / f"{name}.png")
    Image.new("L", (64, 64), 255).save(tmp_path / "data" / "masks" / "a.png")
    done = run_verb("run", "training", cwd=tmp_path, config="train.yaml", **options)
    assert "b" in refused(done)


def test_a_frozen_trunk_without_weights_is_refused_with_the_lines_that_get_them(
    tmp_path, dataset, task_file, small, run_verb, monkeypatch
):
    monkeypatch.setenv("SAM2UNET_CACHE", str(tmp_path / "cache"))
    options = {"dataset_dir": dataset, "task": task_file} | small | {"variant": "tiny"}
    done = run_verb("run", "training", cwd=tmp_path, config="train.yaml", **options)
    line = refused(done)
    assert "sam2unet weights fetch" in line
    assert "sam2unet weights import" in line
    assert not (tmp_path / "runs").exists()


def test_weights_of_another_size_are_refused(tmp_path, dataset, task_file, small, run_verb):
    save_full(SAM2UNet("starter"), tmp_path / "w.safetensors", task=None, dtype=torch.float16)
    options = {"dataset_dir": dataset, "task": task_file, "weights": tmp_path / "w.safetensors"}
    done = run_verb("run", "training", cwd=tmp_path, config="train.yaml", **(options | small))
    assert "w.safetensors" in refused(done)


def test_a_folder_with_another_run_is_not_overwritten(
    tmp_path, dataset, task_file, small, run_verb, trained
):
    before = (trained / "checkpoint.pt").read_bytes()
    options = {"dataset_dir": dataset, "task": task_file, "output_dir": trained} | small
    done = run_verb("run", "training", cwd=tmp_path, config="train.yaml", **options)
    assert "--resume True" in refused(done)
    assert (trained / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("trainin",), "unknown step 'trainin' (did you mean training?)"),
        (
            ("training", "folder"),
            "'folder' belongs to no option, so MONAI takes it for the name of a step",
        ),
    ],
)
def test_a_stray_word_is_not_taken_for_a_step(words, message, tmp_path, dataset, small, run_verb):
    options = {"dataset_dir": dataset} | small
    done = run_verb("run", *words, cwd=tmp_path, config="train.yaml", **options)
    assert message in refused(done)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("config", ["evaluate.yaml", "inference.yaml"])
def test_evaluation_and_inference_hold_their_settings_to_the_same_table(
    config, tmp_path, dataset, run_verb
):
    options = {"dataset_dir": dataset, "overlays": "yes"}
    done = run_verb("run", cwd=tmp_path, config=config, **options)
    assert refused(done) == "Error: overlays yes: expected True or False"
