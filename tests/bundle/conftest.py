"""A small data set, a small task and a network trained on them through the bundle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sam2unet_core.media.image import read_image
from sam2unet_core.network.checkpoint import load_model
from sam2unet_core.phantom import write_dataset
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.task import Task, Weights, installed_bundle, load_preset

BUNDLE = installed_bundle()
CONFIGS = BUNDLE / "configs"
SMALL = {
    "variant": "nano",
    "epochs": 1,
    "batch_size": 4,
    "val_fraction": 0.25,
    "num_workers": 0,
    "device": "cpu",
}


@pytest.fixture(scope="session")
def small() -> dict[str, object]:
    """Settings that train in seconds."""
    return dict(SMALL)


@pytest.fixture(scope="session")
def configs() -> Path:
    """The bundle's folder of configurations."""
    return CONFIGS


RunPython = RunVerb = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen phantom frames of 64 x 80 pixels, four a patient."""
    folder = tmp_path_factory.mktemp("data") / "phantom"
    write_dataset(folder, frames=16, seed=3, size=(64, 80))
    return folder


@pytest.fixture(scope="session")
def two_class_dataset(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """The same frames; what lies in the left half of a mask is class 2."""
    folder = shutil.copytree(dataset, tmp_path_factory.mktemp("two_classes") / "phantom")
    for file in (folder / "masks").iterdir():
        labels = (np.asarray(Image.open(file)) > 0).astype(np.uint8)
        labels[:, : labels.shape[1] // 2] *= 2
        Image.fromarray(labels).save(file)
    return folder


@pytest.fixture(scope="session")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The polyp task at 64 x 64 pixels."""
    file = tmp_path_factory.mktemp("task") / "task.json"
    replace(load_preset("polyp"), image_size=(64, 64)).save(file)
    return file


@pytest.fixture(scope="session")
def run_verb(run_python: RunPython) -> RunVerb:
    """Run `python -m monai.bundle VERB ...` in a folder, as a person would."""

    def run(
        *words: str,
        cwd: Path,
        config: str | list[str] | None = None,
        **options: object,
    ) -> subprocess.CompletedProcess[str]:
        command = ["-m", "monai.bundle", *words]
        if config is not None:
            files = [config] if isinstance(config, str) else config
            paths = [str(CONFIGS / f) if not Path(f).exists() else f for f in files]
            command += ["--config_file", str(paths) if len(paths) > 1 else paths[0]]
        for key, value in options.items():
            command += [f"--{key}", str(value)]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
        return run_python(*command, cwd=cwd, env=environment)

    return run


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, dataset: Path, task_file: Path, run_verb: RunVerb
) -> Path:
    """The folder of a run that was started from a folder that is not the bundle's."""
    here = tmp_path_factory.mktemp("elsewhere")
    done = run_verb(
        "run",
        "training",
        cwd=here,
        config="train.yaml",
        dataset_dir=dataset,
        groups=dataset / "groups.csv",
        task=task_file,
        **(SMALL | {"epochs": 2}),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (here / "runs").iterdir()
    return folder


@pytest.fixture(scope="session")
def own_bundle(tmp_path_factory: pytest.TempPathFactory, trained: Path, dataset: Path) -> Path:
    """A bundle folder of one's own: a copy of ours with the network that `trained` left."""
    folder = tmp_path_factory.mktemp("bundles") / "own"
    shutil.copytree(BUNDLE, folder, ignore=shutil.ignore_patterns("models"))
    (folder / "models").mkdir()
    weights = folder / "models" / "model.safetensors"
    shutil.copy(trained / "model.safetensors", weights)
    torch.save(load_model(weights).state_dict(), folder / "models" / "model.pt")
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    described = Weights("models/model.safetensors", sha256, "nano")
    task = replace(Task.load(trained / "task.json"), weights=described)
    # so little training reaches no 0.5: cut where half of a frame is in the mask
    pixels = read_image(dataset / "images" / "0000.png")
    found = Segmenter.open(task=task, weights=weights, device="cpu").probabilities(pixels[None])
    task = replace(task, threshold=float(np.median(found)))
    task.save(folder / "configs" / "task.json")
    metadata = folder / "configs" / "metadata.json"
    content = json.loads(metadata.read_text())
    for side in ("inputs", "outputs"):
        for tensor in content["network_data_format"][side].values():
            tensor["spatial_shape"] = [64, 64]
    metadata.write_text(json.dumps(content))
    return folder
