"""The weights that travel with the bundle."""

import json
import shutil

import numpy as np
import torch

from sam2unet_core.media.image import read_image, read_mask
from sam2unet_core.network import VARIANTS
from sam2unet_core.network.checkpoint import load_model
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.task import Task, load_preset, presets


def test_both_files_of_the_bundle_hold_the_same_network(configs):
    task = Task.load(configs / "task.json")
    models = configs.parent / "models"
    for_monai = torch.load(models / "model.pt", weights_only=True)
    network = load_model(configs.parent / task.weights.file)
    assert network.variant == VARIANTS[task.weights.variant]
    assert for_monai.keys() == network.state_dict().keys()
    for key, value in network.state_dict().items():
        assert torch.equal(for_monai[key].to(value.dtype), value), key
    assert all(file.stat().st_size < 16e6 for file in models.iterdir())


def test_weights_of_the_other_tasks_are_theirs_and_say_what_they_are(configs):
    for name in presets():
        task = load_preset(name)
        if task.weights is None:
            continue
        segmenter = Segmenter.open(task=name, device="cpu")  # compares the hash and the channels
        assert segmenter.task == task
        assert task.weights.variant == "starter"
        assert task.metrics["note"].startswith("starter model, research only, mean Dice ")


def test_segmenter_and_bundle_run_on_them_without_options_and_agree(tmp_path, dataset, run_verb):
    images = tmp_path / "images"
    images.mkdir()
    for image in sorted((dataset / "images").iterdir())[:5]:
        shutil.copy(image, images)
    segmenter = Segmenter.open(device="cpu")
    done = run_verb(
        "run",
        "inference",
        cwd=tmp_path,
        config="inference.yaml",
        dataset_dir=images,
        output_dir="out",
        device="cpu",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for image in images.iterdir():
        expected = segmenter.label_maps(read_image(image)[None])[0]
        found = read_mask(tmp_path / "out" / f"{image.name}.mask.png", segmenter.task.classes)
        np.testing.assert_array_equal(found, expected)


def test_what_was_measured_is_said_in_task_and_metadata(configs):
    task = Task.load(configs / "task.json")
    metadata = json.loads((configs / "metadata.json").read_text())
    assert metadata["eval_metrics"] == task.metrics
    assert f"mean Dice {task.metrics['polyp_dice']:.2f} on " in task.metrics["note"]
    assert str(task.metrics["polyp_dice"])[:4] in (configs.parent / "docs/README.md").read_text()


def test_other_weights_do_not_inherit_what_was_measured_of_the_bundles(configs):
    file = configs.parent / "models" / "model.safetensors"
    assert Segmenter.open(task="polyp", weights=file, device="cpu").task.metrics == {}
