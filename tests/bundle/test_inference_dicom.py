"""The bundle's inference over DICOM gives what `sam2unet segment` gives."""

from __future__ import annotations

import pydicom
import pytest
from typer.testing import CliRunner

from sam2unet_core.cli import app
from sam2unet_core.phantom.dicom import has_video, write_studies


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "dicom"
    write_studies(out, frames=4, seed=5, size=(64, 96), video=has_video())
    return out / "studies"


def test_bundle_and_command_write_identical_segs(studies, own_bundle, tmp_path, run_verb):
    by_bundle, by_command = tmp_path / "bundle", tmp_path / "command"
    done = run_verb(
        "run",
        cwd=tmp_path,
        config=str(own_bundle / "configs" / "inference.yaml"),
        dataset_dir=studies,
        output_dir=by_bundle,
        overlays=False,
        device="cpu",
        runtime="exact",  # the last bits of 16-bit arithmetic depend on what else is computed
    )
    assert done.returncode == 0, done.stdout + done.stderr
    words = ["segment", str(studies), "-o", str(by_command), "--bundle", str(own_bundle)]
    result = CliRunner().invoke(app, [*words, "--device", "cpu", "--runtime", "exact"])
    assert result.exit_code == 0, result.output
    segs = sorted(p.relative_to(by_bundle) for p in by_bundle.rglob("*.seg.dcm"))
    assert len(segs) == 2 + has_video()
    for name in segs:
        first, second = (pydicom.dcmread(folder / name) for folder in (by_bundle, by_command))
        assert first.PixelData == second.PixelData
        assert first.SOPInstanceUID == second.SOPInstanceUID
    assert any(any(pydicom.dcmread(by_bundle / name).PixelData) for name in segs)
