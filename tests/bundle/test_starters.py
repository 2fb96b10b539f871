"""The recipes of the starter networks, run small."""

import pytest
import torch

from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import read_info, save_full


@pytest.mark.parametrize(("name", "channels"), [("polyp", 1), ("nerve", 3)])
def test_the_recipe_of_a_starter_trains_from_weights_of_one_class(
    name, channels, tmp_path, dataset, two_class_dataset, small, run_verb
):
    save_full(SAM2UNet("nano"), tmp_path / "start.safetensors", task=None, dtype=torch.float32)
    done = run_verb(
        "run",
        "training",
        cwd=tmp_path,
        config=["train.yaml", f"tasks/starter_{name}.yaml"],
        dataset_dir=two_class_dataset if name == "nerve" else dataset,
        groups=dataset / "groups.csv",
        output_dir="out",
        weights="start.safetensors",
        image_size="[64,64]",
        val_interval=1,
        cache_rate=0.0,
        **small,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = "without the heads: the file has 1 output channels" in done.stdout + done.stderr
    assert said == (channels != 1)
    info = read_info(tmp_path / "out" / "model.safetensors")
    assert info.num_classes == channels
    assert info.task.image_size == (64, 64)
