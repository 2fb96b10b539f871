"""The batch run as a component of the bundle: what fails is said, what is written suits."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from sam2unet_core.batch import FolderRun, runner
from sam2unet_core.batch.runner import Outcome
from sam2unet_core.errors import OutputError, SAM2UNetError
from tests.batch.conftest import with_weights


@pytest.fixture
def folder_run(segmenter):
    def make(source: Path, out: Path, **more) -> FolderRun:
        return FolderRun(str(source), str(out), with_weights(segmenter), **more)

    return make


def test_inputs_that_failed_end_the_run_with_an_error_once_the_others_are_done(
    folder_run, images, tmp_path
):
    out = tmp_path / "out"
    with pytest.raises(SAM2UNetError, match=r"1 of 7 inputs failed.*manifest\.jsonl"):
        folder_run(images, out).run()
    assert len(list(out.rglob("*.mask.png"))) == 5


def test_a_run_that_stopped_is_an_error(folder_run, images, tmp_path, monkeypatch):
    stopped = Outcome({}, {}, 0, 0.0, "no more can be written here")
    monkeypatch.setattr(runner, "run", lambda *_, **__: stopped)
    with pytest.raises(OutputError, match="no more can be written here"):
        folder_run(images, tmp_path / "out").run()


def test_overlays_come_on_top_of_what_suits_each_input(folder_run, images, tmp_path):
    source, out = tmp_path / "source", tmp_path / "source" / "out"
    (source / "p0").mkdir(parents=True)
    (source / "p0" / "a.png").write_bytes((images / "p0" / "frame0.png").read_bytes())
    volume = nibabel.Nifti1Image(np.zeros((96, 64, 2), np.uint8), np.diag([1.0, 1, 1, 1]))
    nibabel.save(volume, source / "v.nii.gz")
    outcome = folder_run(source, out, overlays=True).run()
    assert sum(outcome.statuses.values()) == 2
    written = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    results = {name for name in written if name.startswith(("p0/", "v."))}
    assert {"p0/a.png.mask.png", "p0/a.png.overlay.png"} <= results
    assert any(name.endswith(".nii.gz") for name in results)
    assert not any(name.startswith("v.") and name.endswith(".mask.png") for name in results)
    assert sum(folder_run(source, out, overlays=True).run().statuses.values()) == 2
