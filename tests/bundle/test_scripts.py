"""The scripts that travel with the bundle."""

import importlib.util
import json
import shutil
import subprocess
import sys

import numpy as np
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


def load_script(configs, name):
    spec = importlib.util.spec_from_file_location(name, configs.parent / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_temperature_that_made_the_probabilities_is_found_again(configs):
    calibrate = load_script(configs, "calibrate")
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, 200_000)
    truth = rng.random(logits.size) < 1 / (1 + np.exp(-logits))
    overconfident = 1 / (1 + np.exp(-2.5 * logits))
    found = calibrate.calibrate(overconfident, truth)
    assert found["temperature"] == pytest.approx(2.5, rel=0.02)
    assert found["ece_before"] > 0.05
    assert found["ece"] < 0.005


def test_the_calibration_error_is_the_mean_distance_over_bins(configs):
    calibrate = load_script(configs, "calibrate")
    # ten pixels at 0.9 of which six are foreground, ten at 0.1 of which two are
    probability = np.array([0.9] * 10 + [0.1] * 10)
    truth = np.array([True] * 6 + [False] * 4 + [True] * 2 + [False] * 8)
    assert calibrate.calibration_error(probability, truth) == pytest.approx((3 + 1) / 20)


def test_false_findings_are_counted_by_size_in_parts_without_lesion(configs):
    script = load_script(configs, "false_findings")
    mask = np.zeros((100, 200), bool)
    mask[10:40, 20:60] = True
    assert script.largest_free(mask) == (slice(0, 100), slice(60, 200))
    assert script.largest_free(np.zeros((4, 5), bool)) == (slice(0, 4), slice(0, 5))
    found = np.zeros((100, 100), bool)
    found[:7, :7] = True  # 49 of 10,000 pixels: below 0.5 %
    found[50:58, 50:58] = True
    assert script.count_large(found) == 1


def test_false_findings_of_a_data_set_are_written_by_kind(tmp_path, configs, trained):
    write_dataset(tmp_path / "data", frames=3, seed=5, size=(96, 96))
    samples = [
        {"image": f"images/{p.name}", "label": f"masks/{p.name}"}
        for p in sorted((tmp_path / "data" / "images").iterdir())
    ]
    datalist = tmp_path / "datalist.json"
    datalist.write_text(json.dumps({"testing": samples}))
    script = configs.parent / "scripts" / "false_findings.py"
    others = tmp_path / "data" / "images"
    run(
        script,
        tmp_path / "data",
        "--datalist",
        datalist,
        "--others",
        others,
        "--weights",
        trained / "model.safetensors",
        "-o",
        tmp_path / "out",
    )
    found = json.loads((tmp_path / "out" / "false_findings.json").read_text())
    assert set(found) == {"crops", "phantoms", "others"}
    assert found["others"]["pictures"] == 3
    assert found["phantoms"]["pictures"] == 100
