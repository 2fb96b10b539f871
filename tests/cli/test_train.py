import os
import subprocess
import sys

from sam2unet_core.phantom import write_dataset


def test_train_prints_the_bundles_line_and_runs_it(tmp_path):
    write_dataset(tmp_path / "data", frames=8, seed=1, size=(32, 32))
    command = [sys.executable, "-m", "sam2unet_core", "train", "--data", "data", "--task", "polyp"]
    command += ["-o", "run", "--variant", "nano", "--epochs", "1", "--batch_size", "4"]
    command += ["--val_fraction", "0.5", "--num_workers", "0"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " -m monai.bundle run training --config_file " in done.stdout.splitlines()[0]
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_train_takes_a_task_file(tmp_path):
    from sam2unet_core.task import load_preset

    load_preset("skin_lesion").save(tmp_path / "own.json")
    command = [sys.executable, "-m", "sam2unet_core", "train", "--data", "nowhere", "-o", "run"]
    command += ["--task", "own.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "--task own.json" in done.stdout
    assert done.returncode == 2
    assert "nowhere" in done.stderr


def test_train_passes_on_the_exit_code_of_a_failed_run(tmp_path):
    command = [sys.executable, "-m", "sam2unet_core", "train", "--data", "nowhere", "-o", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "nowhere" in done.stderr
