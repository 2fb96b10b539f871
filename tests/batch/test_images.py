"""Folders of images: what is written, what the manifest says, what is told apart."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2unet_core.errors import ConfigError


def manifest(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def outputs(out: Path) -> set[str]:
    found = (p for p in out.rglob("*") if p.is_file() and "private" not in p.parts)
    return {p.relative_to(out).as_posix() for p in found}


def test_a_mask_is_named_after_its_image_with_the_suffix_kept(images, run_batch, tmp_path):
    out = tmp_path / "out"
    run_batch(images, out)
    assert outputs(out) == {
        "p0/frame0.png.mask.png",
        "p0/frame2.png.mask.png",
        "p0/frame4.png.mask.png",
        "p1/frame1.png.mask.png",
        "p1/frame3.png.mask.png",
        "manifest.jsonl",
        "run.json",
        "summary.csv",
        "report.html",
        ".lock",
        ".merging",
    }


def test_masks_are_where_the_bright_squares_are(images, run_batch, tmp_path):
    run_batch(images, tmp_path / "out")
    with Image.open(tmp_path / "out" / "p1" / "frame3.png.mask.png") as image:
        assert image.mode == "P"
        assert image.getpalette()[:6] == [0, 0, 0, 86, 180, 233]
        found = np.array(image)
    expected = np.zeros((64, 96), np.uint8)
    expected[8:38, 20:50] = 1
    np.testing.assert_array_equal(found, expected)


def test_every_file_has_one_line_with_a_true_reason(images, run_batch, tmp_path):
    outcome = run_batch(images, tmp_path / "out")
    lines = manifest(tmp_path / "out")
    told = Counter((line["status"], line["reason"]) for line in lines)
    assert told == {
        ("done", None): 4,
        ("empty", None): 1,
        ("failed", "corrupt"): 1,
        ("skipped", "not_an_image"): 1,
    }
    assert outcome.exit_code == 3
    assert len({line["id"] for line in lines}) == 7


def test_lines_hold_every_key_and_true_hashes(images, run_batch, tmp_path):
    out = tmp_path / "out"
    run_batch(images, out)
    done = [line for line in manifest(out) if line["status"] == "done"]
    line = next(each for each in done if "frame3" in each["outputs"][0]["path"])
    source = (images / "p1" / "frame3.png").read_bytes()
    (output,) = line["outputs"]
    assert line["schema"] == 1
    assert line["kind"] == "images"
    assert line["study"] is None
    assert line["series"] is None
    assert line["source_sha256"] == hashlib.sha256(source).hexdigest()
    assert (line["frames"], line["frames_with_findings"]) == (1, 1)
    assert output["kind"] == "mask"
    written = (out / output["path"]).read_bytes()
    assert output["sha256"] == hashlib.sha256(written).hexdigest()
    assert set(line["ms"]) == {"decode", "network", "write"}
    assert len(line["key"]) == 64


def test_messages_in_the_manifest_name_no_file(images, run_batch, tmp_path):
    run_batch(images, tmp_path / "out")
    failed = [line for line in manifest(tmp_path / "out") if line["status"] == "failed"]
    assert failed[0]["message"]
    assert "torn" not in failed[0]["message"]
    assert str(tmp_path) not in failed[0]["message"]


def test_summary_has_areas_and_counts_known_from_the_drawing(images, run_batch, tmp_path):
    run_batch(images, tmp_path / "out")
    with (tmp_path / "out" / "summary.csv").open(newline="") as stream:
        rows = {row["name"]: row for row in csv.DictReader(stream)}
    assert rows["p1/frame3.png"]["largest_area_px"] == str(30 * 30)
    assert rows["p1/frame3.png"]["status"] == "done"
    assert rows["p0/frame2.png"]["largest_area_px"] == "0"
    assert rows["p0/frame2.png"]["status"] == "empty"
    assert rows["p1/frame3.png"]["largest_area_mm2"] == ""
    assert len(rows) == 5


def test_pseudonyms_replace_the_path_and_lead_back_in_private(images, run_batch, tmp_path):
    out = tmp_path / "out"
    run_batch(images, out, names="pseudonymize")
    names = outputs(out)
    assert not any("frame" in name or "p0" in name for name in names)
    assert "frame0" not in (out / "report.html").read_text()
    with (out / "private" / "sources.csv").open(newline="") as stream:
        rows = {row["id"]: row["source"] for row in csv.DictReader(stream)}
    assert len(rows) == 7
    for name in names:
        if name.endswith(".mask.png"):
            assert Path(rows[name.removesuffix(".mask.png")]).is_file()


def test_private_table_is_for_its_owner_only(images, run_batch, tmp_path):
    run_batch(images, tmp_path / "out")
    assert (tmp_path / "out" / "private").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "out" / "private" / "sources.csv").stat().st_mode & 0o777 == 0o600


def test_two_inputs_with_one_relative_path_keep_two_lines(images, run_batch, tmp_path):
    from sam2unet_core.types import Instance, Series

    items = []
    for name in ("a", "b"):
        root = tmp_path / name
        root.mkdir()
        side = 10 if name == "a" else 30
        pixels = np.zeros((64, 96, 3), np.uint8)
        pixels[:side, :side] = 255
        Image.fromarray(pixels).save(root / "x.png")
        source = _source()
        instance = Instance(root / "x.png")
        items.append(Series("images", (instance,), source, root, "x.png", 64, 96, 1))
    run_batch(images, tmp_path / "out", items=items)
    lines = manifest(tmp_path / "out")
    paths = [line["outputs"][0]["path"] for line in lines]
    assert len(set(paths)) == 2
    areas = [int((np.array(Image.open(tmp_path / "out" / p)) > 0).sum()) for p in paths]
    assert sorted(areas) == [100, 900]


def test_an_unknown_format_is_refused_with_those_there_are(images, run_batch, tmp_path):
    with pytest.raises(ConfigError, match=r"unknown format 'dcm'; choose from seg, png"):
        run_batch(images, tmp_path / "out", formats=("dcm",))


def test_an_image_without_a_format_that_was_asked_for_is_not_done(images, run_batch, tmp_path):
    outcome = run_batch(images, tmp_path / "out", formats=("png", "seg"))
    lines = [line for line in manifest(tmp_path / "out") if line["kind"] == "images"]
    assert {line["status"] for line in lines} == {"failed"}
    lines = [line for line in lines if line["frames"]]  # the others are broken
    assert len(lines) > 2
    assert outcome.exit_code == 3
    for line in lines:
        assert line["reason"] == "unsupported_output"
        assert line["warnings"] == ["output_omitted"]
        assert line["message"].startswith("no seg: the source is not DICOM")
        assert [each["kind"] for each in line["outputs"]] == ["mask"]  # the other is there


def test_probabilities_are_16_bit_and_say_what_the_network_said(images, run_batch, tmp_path):
    run_batch(images, tmp_path / "out", formats=("probabilities",))
    with Image.open(tmp_path / "out" / "p1" / "frame3.png.prob1.png") as image:
        stored = np.array(image) / 65535
    normalised = (250 / 255 - 0.485) / 0.229  # ImageNet's red channel
    assert stored[20, 30] == pytest.approx(1 / (1 + np.exp(-10 * normalised)), abs=1e-4)
    dark = (20 / 255 - 0.485) / 0.229
    assert stored[60, 90] == pytest.approx(1 / (1 + np.exp(-10 * dark)), abs=1e-4)


def test_audit_line_says_who_when_and_with_what(images, run_batch, tmp_path):
    run_batch(images, tmp_path / "out")
    run_batch(images, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert len(record["runs"]) == 2
    first, second = record["runs"]
    assert first["who"]
    assert first["exit_code"] == 3
    assert first["frames"] == 5
    assert second["frames"] == 0
    assert record["started"] <= first["when"]
    assert record["model"]["weights_sha256"] == "ab" * 32
    assert "/in" not in json.dumps(record)


def _source():
    from sam2unet_core.media.image import read_image
    from sam2unet_core.types import Frame

    class Source:
        def frames(self, series, *, indices, window, on_error):
            yield Frame(read_image(series.instances[0].path), 0, 0, 1)

        def dataset(self, series, instance_index):
            return None

    return Source()
