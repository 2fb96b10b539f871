"""Phantom studies are valid DICOM, and their frames match the masks they come with."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sam2unet_core.cli.main import app
from sam2unet_core.dicom import open_study
from sam2unet_core.errors import DataError
from sam2unet_core.phantom.dicom import WrittenStudy, write_studies


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, list[WrittenStudy]]:
    out = tmp_path_factory.mktemp("studies") / "out"
    return out, write_studies(out, frames=7, seed=3, size=(96, 128))


def test_there_is_a_stack_a_cine_and_a_video_of_so_many_frames(written) -> None:
    out, _ = written
    found = {s.kind: s for s in open_study(out / "studies")}
    assert set(found) == {"stack", "multiframe", "video"}
    assert {s.frame_count for s in found.values()} == {7}
    assert {s.modality for s in found.values()} == {"ES"}
    assert found["video"].frames_per_second == found["multiframe"].frames_per_second == 25


def test_lossy_frames_are_those_drawn_for_their_number(written) -> None:
    # Neighbouring frames are shifted: only the right one is close, for each of the codecs.
    _, studies = written
    for study in studies:
        (series,) = open_study(study.files[0].parent)
        masks = [np.array(Image.open(p)) for p in study.masks]
        assert len(masks) == 7
        assert all(set(np.unique(mask)) <= {0, 255} for mask in masks)
        assert masks[0].any()
        assert not np.array_equal(masks[0], masks[3])
        assert [f.index for f in series.frames()] == list(range(7))


def test_jpeg_and_h264_keep_the_colours_of_what_was_drawn(written, tmp_path, monkeypatch) -> None:
    from sam2unet_core.phantom import dicom

    drawn: list[list[np.ndarray]] = []
    clip = dicom._clip

    def remember(*args, **options):
        frames = list(clip(*args, **options))
        drawn.append([pixels for pixels, _ in frames])
        return iter(frames)

    monkeypatch.setattr(dicom, "_clip", remember)
    studies = write_studies(tmp_path / "out", frames=5, seed=3, size=(96, 128))
    for study, frames, tolerance in zip(studies, drawn, (0, 3, 4), strict=True):
        (series,) = open_study(study.files[0].parent)
        shown = [f.pixels.astype(float) for f in series.frames()]
        for index, pixels in enumerate(frames):
            away = [np.abs(pixels - other).mean() for other in shown]
            assert int(np.argmin(away)) == index
            assert away[index] <= tolerance
            assert np.abs((pixels - shown[index]).mean(axis=(0, 1))).max() <= 2.5


def test_the_same_seed_writes_the_same_bytes(written, tmp_path) -> None:
    _, studies = written
    again = write_studies(tmp_path / "out", frames=7, seed=3, size=(96, 128))
    for one, other in zip(studies, again, strict=True):
        for first, second in zip(one.files, other.files, strict=True):
            hashes = {hashlib.sha256(p.read_bytes()).hexdigest() for p in (first, second)}
            assert len(hashes) == 1, first.name


def test_a_validator_finds_no_error(written) -> None:
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("needs dciodvfy: apt-get install dicom3tools")
    _, studies = written
    for study in studies:
        run = subprocess.run(
            [validator, study.files[0]], capture_output=True, text=True, check=False
        )
        assert "Error" not in run.stdout + run.stderr, study.name


def test_the_command_writes_studies(tmp_path) -> None:
    arguments = ["phantom", "--dicom", str(tmp_path / "o"), "--frames", "2", "--size", "64", "64"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert len(list(tmp_path.rglob("*.dcm"))) == 4
    assert len(list(tmp_path.rglob("*.png"))) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": (65, 64)}, "even"), ({"frames": 0}, "from 1"), ({"size": (16, 64)}, "minimum is")],
)
def test_what_cannot_be_written_is_refused(tmp_path, options, message) -> None:
    with pytest.raises(DataError, match=message):
        write_studies(tmp_path / "o", **options)
    assert not (tmp_path / "o").exists()
