"""Example data that the worker draws."""

from __future__ import annotations

import hashlib
from typing import Any

import pydicom
import pytest
import SimpleITK

from sam2unet_core.phantom.dicom import has_video


@pytest.mark.skipif(not has_video(), reason="PyAV is not installed")
def test_a_clip_is_a_dicom_video_that_the_worker_reads(worker: Any, root: Any) -> None:
    result = worker.result("make_sample", kind="clip", output="clip.dcm")
    made = worker.folder / result["file"]
    assert hashlib.sha256(made.read_bytes()).hexdigest() == result["sha256"]
    dataset = pydicom.dcmread(made, stop_before_pixels=True)
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.77.1.1.1"  # Video Endoscopic
    (root / "clip.dcm").write_bytes(made.read_bytes())
    found = worker.result("read_frames", path=str(root / "clip.dcm"), start=95)
    assert found["frames"]["shape"] == [5, 480, 640, 3]
    assert worker.array(found["frames"]).std() > 10
    again = worker.result("make_sample", kind="clip", output="again.dcm")
    assert pydicom.dcmread(worker.folder / again["file"]).SOPInstanceUID == dataset.SOPInstanceUID


def test_a_volume_is_a_file_that_others_read(worker: Any) -> None:
    result = worker.result("make_sample", kind="volume", output="volume.nrrd")
    image = SimpleITK.ReadImage(str(worker.folder / result["file"]))
    assert image.GetDimension() == 3
    assert SimpleITK.GetArrayFromImage(image).std() > 50


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"kind": "clip", "output": "clip.nrrd"}, "bad_request"),
        ({"kind": "picture", "output": "picture.png"}, "bad_request"),
        ({"output": "clip.dcm"}, "bad_request"),
        ({"kind": "volume", "output": "../volume.nrrd"}, "not_allowed"),
    ],
)
def test_other_samples_and_places_are_refused(
    worker: Any, fields: dict[str, str], kind: str
) -> None:
    assert worker.ask("make_sample", **fields)["kind"] == kind
