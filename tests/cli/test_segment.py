"""`sam2unet segment` as a person runs it: options, exit codes, what it prints."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from sam2unet_core.batch.folder import FolderLock
from sam2unet_core.cli import app
from sam2unet_core.errors import SAM2UNetError
from sam2unet_core.media.image import read_image, read_mask
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import save_full
from sam2unet_core.phantom import write_dataset
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.task import load_preset

STOPPED = """
import os, signal
from sam2unet_core.batch.folder import Manifest
from sam2unet_core.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
append, calls = Manifest.append, []
def stop_at_the_third(*given):
    append(*given)
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGINT)
Manifest.append = stop_at_the_third
main()
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "nano.safetensors"
    torch.manual_seed(0)
    task = replace(load_preset("polyp"), image_size=(64, 64))
    save_full(SAM2UNet("nano"), path, task=task)
    return path


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("frames") / "phantom"
    write_dataset(folder, frames=3, seed=1, size=(64, 80))
    return folder / "images"


@pytest.fixture
def segment(weights, frames, tmp_path):
    def call(*options: str, source: Path = frames, out: Path = tmp_path / "out"):
        words = ["segment", str(source), "-o", str(out), "--weights", str(weights)]
        return CliRunner().invoke(app, [*words, "--device", "cpu", *options])

    return call


def test_masks_are_those_of_the_segmenter(segment, frames, weights, tmp_path):
    segmenter = Segmenter.open(weights=weights, device="cpu")
    probabilities = segmenter.probabilities(
        np.stack([read_image(path) for path in sorted(frames.iterdir())])
    )
    threshold = round(float(np.median(probabilities)), 3)  # so that masks are not empty
    result = segment("--threshold", str(threshold), "--format", "png")
    assert result.exit_code == 0, result.output
    for path, expected in zip(sorted(frames.iterdir()), probabilities, strict=True):
        found = read_mask(tmp_path / "out" / f"{path.name}.mask.png", segmenter.task.classes)
        agree = (found > 0) == (expected[0] >= threshold)
        assert agree.mean() > 0.999  # batches of another size round differently
        assert 0 < found.sum() < found.size


def test_json_is_one_object_and_quiet_says_nothing(segment, tmp_path):
    result = segment("--json")
    told = json.loads(result.stdout)
    assert told["exit_code"] == result.exit_code == 0
    assert sum(told["statuses"].values()) == 3
    assert told["frames"] == 3
    result = segment("--quiet")
    assert result.stdout == ""
    assert result.exit_code == 0


def test_another_threshold_in_the_same_folder_ends_with_4(segment):
    assert segment().exit_code == 0
    result = segment("--threshold", "0.7")
    assert result.exit_code == 4
    assert "results made with other settings (threshold 0.5, now 0.7)" in result.stderr
    assert segment("--threshold", "0.7", "--redo").exit_code == 0


def test_a_folder_in_use_ends_with_4(segment, tmp_path):
    (tmp_path / "out").mkdir()
    with FolderLock(tmp_path / "out"):
        assert segment().exit_code == 4


def test_a_broken_input_ends_with_3(segment, frames, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(read_image(next(frames.iterdir()))).save(source / "good.png")
    (source / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = segment(source=source)
    assert result.exit_code == 3
    assert "1 failed" in result.output


@pytest.mark.skipif(sys.platform == "win32", reason="needs Linux or macOS, to send SIGINT")
def test_a_run_that_is_stopped_says_how_it_goes_on_and_does(
    segment, frames, weights, run_python, tmp_path
):
    many, out, script = tmp_path / "many", tmp_path / "out", tmp_path / "stopped.py"
    many.mkdir()
    for number in range(40):
        shutil.copy(next(frames.iterdir()), many / f"{number:03d}.png")
    script.write_text(STOPPED)
    words = ["segment", many, "-o", out, "--weights", weights, "--device", "cpu", "--quiet"]
    run = run_python(script, *words)
    said = run.stderr
    assert (run.returncode, "Run the same command again to resume" in said) == (130, True), said
    assert 3 <= len((out / "manifest.jsonl").read_text().splitlines()) < 40
    again = segment("--json", source=many, out=out)
    assert again.exit_code == 0
    assert len(list(out.glob("*.mask.png"))) == 40


def test_results_in_the_input_folder_are_not_taken_for_inputs(segment, frames, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(read_image(next(frames.iterdir()))).save(source / "a.png")
    for _ in range(2):
        told = json.loads(segment("--json", source=source, out=source / "out").stdout)
        assert told["statuses"].keys() <= {"done", "empty"}
        assert sum(told["statuses"].values()) == 1
    result = segment(source=source, out=source)
    assert "both input and output" in str(result.exception)
    assert not (source / "run.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "dcm"], "unknown format 'dcm'; choose from seg, png"),
        (["--shard", "3/2"], "--shard 3/2"),
        (["--plane", "oblique"], "unknown plane 'oblique'; choose from axial"),
        (["--seg-type", "x"], "unknown SEG type 'x'; choose from binary"),
        (["--threshold", "2"], "--threshold 2"),
        (["--device", "tpu"], "device 'tpu'"),
        (["--series", "colour=red"], "series filter 'colour=red'"),
        (["--task", "plyp"], "unknown task 'plyp'"),
    ],
)
def test_usage_errors_name_the_option_and_write_nothing(segment, tmp_path, options, message):
    result = segment(*options)
    assert isinstance(result.exception, SAM2UNetError)  # which `main` turns into exit code 2
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_an_input_that_is_not_there_is_named(segment, tmp_path):
    result = segment(source=tmp_path / "nowhere")
    assert isinstance(result.exception, SAM2UNetError)
    assert "nowhere: no such file or directory" in str(result.exception)


def test_shards_are_merged_by_the_command(segment, tmp_path, weights):
    for number in (1, 2):
        code = segment("--shard", f"{number}/2", out=tmp_path / f"{number}").exit_code
        assert code == 0
    words = ["segment", str(tmp_path / "1"), str(tmp_path / "2"), "-o", str(tmp_path / "all")]
    result = CliRunner().invoke(app, [*words, "--merge"])
    assert result.exit_code == 0, result.output
    assert len((tmp_path / "all" / "manifest.jsonl").read_text().splitlines()) == 3


def ct_slice(path: Path) -> None:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.SOPClassUID, dataset.Modality = "1.2.840.10008.5.1.4.1.1.2", "CT"
    dataset.SOPInstanceUID = dataset.SeriesInstanceUID = dataset.StudyInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 64, 80, 1
    dataset.PhotometricInterpretation, dataset.BitsAllocated = "MONOCHROME2", 16
    dataset.BitsStored, dataset.HighBit = 16, 15  # and no PixelRepresentation
    dataset.PixelData = bytes(64 * 80 * 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def test_an_input_with_nothing_to_segment_is_exit_3_and_the_screen_says_why(segment, tmp_path):
    ct_slice(tmp_path / "ct" / "1.dcm")
    result = segment(source=tmp_path / "ct")
    assert result.exit_code == 3
    assert "1 series skipped: the task polyp is for ES, XC, OT, GM; --force-task" in result.output
    readme = tmp_path / "README"
    readme.write_text("hello")
    result = segment(source=readme, out=tmp_path / "other")
    assert result.exit_code == 3
    assert "README: nothing to segment (1 not_an_image" in result.output
    result = segment("--quiet", source=readme, out=tmp_path / "other")
    assert result.exit_code == 3
    assert "nothing to segment" in result.output


def test_series_that_do_not_fit_are_told_beside_those_that_do(segment, frames, tmp_path):
    shutil.copytree(frames, tmp_path / "mixed")
    ct_slice(tmp_path / "mixed" / "ct" / "1.dcm")
    result = segment(source=tmp_path / "mixed")
    assert result.exit_code == 0
    assert "Note: 1 series skipped: the task polyp is for ES" in result.output


def test_warnings_are_counted_on_the_screen_and_in_json(segment, tmp_path):
    ct_slice(tmp_path / "ct" / "1.dcm")
    result = segment("--force-task", source=tmp_path / "ct")
    assert result.exit_code == 0
    assert "warning value_assumed: 1" in result.output
    result = segment("--force-task", "--json", source=tmp_path / "ct")
    assert json.loads(result.stdout)["warnings"] == {"value_assumed": 1, "window_guessed": 1}


def test_an_archive_is_an_input_as_its_folder_is(segment, frames, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "export"), "zip", frames)
    result = segment(source=Path(archive))
    assert result.exit_code == 0
    assert len(list((tmp_path / "out").glob("*.mask.png"))) == 3
