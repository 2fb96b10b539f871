"""The scripts that travel with the bundle."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

from sam2unet_core.data import load_split
from sam2unet_core.network.checkpoint import load_model
from sam2unet_core.phantom import write_dataset
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.task import Task


def run(script, *arguments):
    command = [sys.executable, str(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_frames_that_look_alike_are_held_out_together(tmp_path, configs):
    data = tmp_path / "data"
    write_dataset(data, frames=40, seed=5, size=(96, 96))
    for file in sorted((data / "images").iterdir()):
        Image.open(file).save(file.with_name(f"copy_{file.stem}.jpg"), quality=60)
        mask = data / "masks" / file.name
        shutil.copy(mask, mask.with_name(f"copy_{mask.name}"))
    script = configs.parent / "scripts" / "hold_out.py"
    printed = run(script, data, tmp_path / "split")
    assert "40 frames look like another" in printed
    sections = json.loads((tmp_path / "split" / "datalist.json").read_text())
    names = {
        section: {
            entry["image"].removeprefix("images/").removeprefix("copy_")[:4] for entry in found
        }
        for section, found in sections.items()
    }
    assert names["testing"]
    assert not names["testing"] & names["training"]
    split = load_split(
        data,
        datalist=tmp_path / "split" / "datalist.json",
        groups=tmp_path / "split" / "groups.csv",
        val_fraction=0.2,
    )
    assert not {s.group for s in split.training} & {s.group for s in split.validation}


@pytest.fixture
def writable_bundle(own_bundle, tmp_path):
    return shutil.copytree(own_bundle, tmp_path / "bundle")


def test_packed_weights_are_the_bundles_own_in_both_files(writable_bundle, trained, tmp_path):
    measured = {"mean": 0.5, "low": 0.4, "high": 0.6}
    scores = {"dice": measured, "iou": measured}
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps({"images": 7, "classes": {"polyp": {"scores": scores}}}))
    script = writable_bundle / "scripts" / "pack_weights.py"
    run(script, trained / "model.safetensors", summary, "--on", "phantoms")
    task = Task.load(writable_bundle / "configs" / "task.json")
    assert task.metrics["polyp_dice"] == 0.5
    assert task.metrics["on"] == "phantoms"
    segmenter = Segmenter.open(writable_bundle, device="cpu")
    packed = segmenter.runtime.network.state_dict()
    exact = load_model(trained / "model.safetensors").state_dict()
    for_monai = torch.load(writable_bundle / "models" / "model.pt", weights_only=True)
    for key, value in packed.items():
        assert torch.equal(for_monai[key].to(value.dtype), value), key
        torch.testing.assert_close(value, exact[key], rtol=1e-3, atol=1e-6)
    file = writable_bundle / "models" / "model.safetensors"
    assert file.stat().st_size < 0.55 * (trained / "model.safetensors").stat().st_size
