"""The scripts that travel with the bundle."""

import importlib.util
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from sam2unet_core.data import Sample, load_split, read_dataset
from sam2unet_core.evaluation import evaluate_samples
from sam2unet_core.media.image import overlay, read_image, read_mask, write_image, write_mask
from sam2unet_core.monai_parts.negatives import free_parts
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import load_model, save_full
from sam2unet_core.phantom import write_dataset
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.task import Task, load_preset


@pytest.fixture
def run(run_python):
    """Run a script, and return what it prints."""

    def call(script, *arguments):
        done = run_python(script, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_frames_that_look_alike_are_held_out_together(tmp_path, configs, run):
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


def test_packed_weights_are_the_bundles_own_in_both_files(writable_bundle, trained, tmp_path, run):
    measured = {"mean": 0.5, "low": 0.4, "high": 0.6}
    scores = {"dice": measured, "iou": measured}
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps({"images": 7, "classes": {"polyp": {"scores": scores}}}))
    script = writable_bundle / "scripts" / "pack_weights.py"
    run(script, trained / "model.safetensors", summary, "--on", "phantoms")
    task = Task.load(writable_bundle / "configs" / "task.json")
    assert task.metrics["polyp_dice"] == 0.5
    assert task.metrics["on"] == "phantoms"
    Segmenter.open(writable_bundle, device="cpu")  # compares the hash
    packed = load_model(writable_bundle / "models" / "model.safetensors").state_dict()
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
    found = calibrate.calibrate(np.column_stack([1 - overconfident, overconfident]), truth)
    assert found["temperature"] == pytest.approx(2.5, rel=0.02)
    assert found["ece_before"] > 0.05
    assert found["ece"] < 0.005


def test_a_temperature_of_classes_that_exclude_one_another_is_found_too(configs):
    calibrate = load_script(configs, "calibrate")
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (100_000, 3))
    right = softmax(logits)
    truth = (rng.random(len(right))[:, None] > right.cumsum(axis=1)).sum(axis=1)
    found = calibrate.calibrate(softmax(0.4 * logits), truth)  # too cautious
    assert found["temperature"] == pytest.approx(0.4, rel=0.02)
    assert found["ece_before"] > 0.05
    assert found["ece"] < 0.005


def softmax(logits):
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True)


def test_a_network_of_two_classes_is_calibrated_on_its_validation_frames(
    tmp_path, configs, two_class_dataset, run
):
    task = replace(load_preset("nerve_ultrasound"), image_size=(64, 64))
    torch.manual_seed(0)
    save_full(SAM2UNet("nano", num_classes=3), tmp_path / "w.safetensors", task=task)
    script = configs.parent / "scripts" / "calibrate.py"
    arguments = [tmp_path / "w.safetensors", two_class_dataset]
    arguments += ["--groups", two_class_dataset / "groups.csv"]
    run(script, *arguments, "--val_fraction", 0.25, "-o", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["frames"] == 4
    assert 0 <= found["ece"] <= 1
    assert 0.08 < found["temperature"] < 12.2  # e to the power of -2.5 to 2.5


def test_the_highest_peak_that_costs_little_dice_is_chosen(configs, tmp_path):
    """A true component that reaches 0.825 and a false one of 0.715: 0.72 to 0.82 drop the false."""
    calibrate = load_script(configs, "calibrate")
    task = load_preset("polyp")
    found = np.zeros((1, 1, 32, 32), np.float32)
    found[0, 0, 2:10, 2:10] = 0.825
    found[0, 0, 20:28, 20:28] = 0.715
    truth = np.zeros((32, 32), np.uint8)
    truth[2:10, 2:10] = 1
    image, mask = tmp_path / "image.png", tmp_path / "mask.png"
    write_image(image, np.zeros((32, 32, 3), np.uint8))
    write_mask(mask, truth, task.classes)
    segmenter = SimpleNamespace(task=task, probabilities=lambda _: found)
    chosen = calibrate.choose_peak(segmenter, [Sample(image, mask, "a", "a")])
    assert chosen == {"peak_threshold": 0.82, "dice_before": round(2 / 3, 4), "dice": 1.0}
    truth[:] = 0
    truth[20:28, 20:28] = 1  # now the doubtful one is the true one: no peak may be asked of it
    write_mask(mask, truth, task.classes)
    chosen = calibrate.choose_peak(segmenter, [Sample(image, mask, "a", "a")])
    assert chosen["peak_threshold"] == 0.71


@pytest.mark.parametrize(("doubtful", "expected"), [(0, 0.9), (9, 0.75)])
def test_a_peak_may_cost_one_standard_error(configs, tmp_path, doubtful, expected):
    """Ten frames: Dice 0.5 in five and 1 in five, standard error 0.088; one reaches 0.755 alone.

    Without it the mean falls by 0.05 if it was one of the first five, else by 0.1.
    """
    calibrate = load_script(configs, "calibrate")
    task = load_preset("polyp")
    samples, found = [], []
    for number in range(10):
        truth = np.zeros((32, 32), np.uint8)
        truth[2:10, 2:10] = 1
        if number < 5:
            truth = np.roll(truth, 4, axis=0)
        paths = tmp_path / f"{number}.png", tmp_path / f"{number}_mask.png"
        write_image(paths[0], np.full((32, 32, 3), number, np.uint8))
        write_mask(paths[1], truth, task.classes)
        samples.append(Sample(*paths, str(number), str(number)))
        found.append(np.zeros((1, 1, 32, 32), np.float32))
        found[-1][0, 0, 2:10, 2:10] = 0.755 if number == doubtful else 0.905
    segmenter = SimpleNamespace(task=task, probabilities=lambda frames: found[frames[0, 0, 0, 0]])
    chosen = calibrate.choose_peak(segmenter, samples)
    assert chosen["dice_before"] == 0.75
    assert chosen["peak_threshold"] == expected


def test_the_calibration_error_is_the_mean_distance_over_bins(configs):
    calibrate = load_script(configs, "calibrate")
    # ten pixels at 0.9 of which six are foreground, ten at 0.1 of which two are
    probability = np.array([0.9] * 10 + [0.1] * 10)
    truth = np.array([True] * 6 + [False] * 4 + [True] * 2 + [False] * 8)
    assert calibrate.calibration_error(probability, truth) == pytest.approx((3 + 1) / 20)


def test_false_findings_are_counted_by_size(configs):
    script = load_script(configs, "false_findings")
    found = np.zeros((100, 100), bool)
    found[:7, :7] = True  # 49 of 10,000 pixels: below 0.5 %
    found[50:58, 50:58] = True
    assert script.count_large(found) == 1


def test_the_part_without_lesion_has_at_least_a_third_of_each_side(configs):
    script = load_script(configs, "false_findings")
    pixels = np.arange(60 * 90 * 3, dtype=np.uint16).astype(np.uint8).reshape(60, 90, 3)
    masks = np.zeros((3, 60, 90), np.uint8)
    masks[0, 5:40, 10:60] = 2  # right: 30 of 90 columns, below: 20 of 60 rows
    masks[1, 5:41, 10:61] = 1  # a line less of both
    found = list(script._crops((pixels, mask) for mask in masks))
    assert len(found) == 2
    assert found[0].shape in ((60, 30, 3), (20, 90, 3))
    np.testing.assert_array_equal(found[1], pixels)


@pytest.fixture
def find_false_findings(configs, monkeypatch):
    """Call the script's `main` on five phantoms in place of a hundred."""
    script = load_script(configs, "false_findings")
    monkeypatch.setattr(script, "PHANTOMS", 5)

    def call(*words):
        monkeypatch.setattr("sys.argv", ["false_findings.py", *map(str, words)])
        script.main()

    return call


def test_false_findings_on_validation_frames_leave_the_held_out_ones_alone(
    tmp_path, dataset, trained, find_false_findings
):
    entries = [
        {"image": f"images/{p.name}", "label": f"masks/{p.name}"}
        for p in sorted((dataset / "images").iterdir())
    ]
    gone = [{"image": "images/gone.png", "label": "masks/gone.png"}]
    datalist = tmp_path / "datalist.json"
    datalist.write_text(json.dumps({"training": entries, "testing": gone}))
    options = ["--datalist", datalist, "--groups", dataset / "groups.csv"]
    options += ["--weights", trained / "model.safetensors", "-o", tmp_path / "out"]
    find_false_findings(dataset, *options, "--section", "validation", "--val_fraction", 0.25)
    found = json.loads((tmp_path / "out" / "false_findings.json").read_text())
    split = load_split(dataset, datalist=datalist, groups=dataset / "groups.csv", val_fraction=0.25)
    assert len(split.validation) == 4
    least = 1 / 3
    free = [any(free_parts(read_image(s.mask)[..., 0] > 0, least=least)) for s in split.validation]
    assert found["crops"]["pictures"] == sum(free) > 0


def test_false_findings_of_a_data_set_are_written_by_kind(
    tmp_path, configs, trained, run, find_false_findings
):
    write_dataset(tmp_path / "data", frames=3, seed=5, size=(96, 96))
    samples = [
        {"image": f"images/{p.name}", "label": f"masks/{p.name}"}
        for p in sorted((tmp_path / "data" / "images").iterdir())
    ]
    datalist = tmp_path / "datalist.json"
    datalist.write_text(json.dumps({"testing": samples}))
    assert "--others" in run(configs.parent / "scripts" / "false_findings.py", "--help")
    others = tmp_path / "data" / "images"
    find_false_findings(
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
    assert found["phantoms"]["pictures"] == 5


def test_the_gallery_shows_the_worst_frames_first(tmp_path, configs, dataset, run):
    classes = load_preset("polyp").classes
    masks = tmp_path / "eval" / "masks"
    masks.mkdir(parents=True)
    samples = read_dataset(dataset)
    shown = [s for s in samples if (read_mask(s.mask, classes) > 0).any()]
    for sample in samples:  # right everywhere, but of the third nothing and of the sixth half
        labels = read_mask(sample.mask, classes)
        if sample == shown[2]:
            labels = labels * 0
        if sample == shown[5]:
            columns = np.flatnonzero(labels.any(axis=0))
            labels[:, : (columns[0] + columns[-1]) // 2] = 0
        write_mask(masks / f"{sample.image.name}.mask.png", labels, classes)
    evaluate_samples(masks, samples, task=load_preset("polyp")).write(tmp_path / "eval")
    script = configs.parent / "scripts" / "failure_gallery.py"
    picture = tmp_path / "gallery.png"
    said = run(script, tmp_path / "eval", dataset, "-n", 3, "-o", picture).splitlines()
    assert said[0] == f"{shown[2].name}: Dice polyp 0.00"
    assert said[1].startswith(f"{shown[5].name}: Dice polyp 0.")
    assert said[2].endswith("Dice polyp 1.00")
    assert "parts of the data set" in said[3]
    sheet = np.asarray(Image.open(picture))
    assert sheet.shape == (2 * 218, 2 * 3 * 200, 3)  # three frames in two columns of three tiles
    # the frame of 64 x 80 pixels lies below its caption; the first result shows nothing more
    frame = read_image(shown[2].image)
    np.testing.assert_array_equal(sheet[18 : 18 + 64, :80], frame)
    np.testing.assert_array_equal(sheet[18 : 18 + 64, 400:480], frame)
    assert (sheet[18 : 18 + 64, 200:280] != frame).any()
    # of the second the result shows less than the reference
    drawn = [sheet[18:82, x : x + 80] for x in (800, 1000)]
    expected = overlay(
        read_image(shown[5].image),
        read_mask(masks / f"{shown[5].image.name}.mask.png", classes),
        classes,
    )
    np.testing.assert_array_equal(drawn[1], expected)
    assert (drawn[0] != drawn[1]).any()


def test_the_worst_frames_are_those_of_the_lowest_mean_over_the_classes(configs):
    script = load_script(configs, "failure_gallery")
    scores = {"b": {"x": 0.5, "y": 0.1}, "a": {"x": 0.3, "y": 0.3}, "c": {"x": 0.0, "y": 0.2}}
    assert [name for name, _ in script.worst(scores, number=2)] == ["c", "a"]
