"""Real archives: every object written from them is valid and lies where its source lies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from sam2unet_core.dicom import open_study
from sam2unet_core.dicom.secondary_capture import SecondaryCaptureWriter
from sam2unet_core.dicom.seg import SegWriter
from sam2unet_core.dicom.structured_report import ReportWriter
from sam2unet_core.dicom.uids import Provenance
from sam2unet_core.task import Task
from sam2unet_core.types import Series

Validate = Callable[[Path], list[str]]
FOLDERS = (
    "endoscopy_secondary_capture",
    "ct_gantry_tilt_ge",
    "seg_with_source_ct",
    "ultrasound_multiframe",
    "pydicom_data",  # files without UIDs, with illegal ones, of several frames in one-frame classes
)


def write_all(series: Series, folder: Path, *, task: Task, provenance: Provenance) -> list[Path]:
    """Write SEG, overlay and report of a rectangle in each frame that decodes."""
    paths = [folder / name for name in ("seg.dcm", "overlay.dcm", "report.dcm")]
    seg, overlay, report = (
        writer(path, series, task=task, provenance=provenance)
        for writer, path in zip(
            (SegWriter, SecondaryCaptureWriter, ReportWriter), paths, strict=True
        )
    )
    with seg, overlay, report:
        for frame in series.frames(on_error=lambda _index, _error: None):
            height, width = frame.pixels.shape[:2]
            labels = np.zeros((height, width), np.uint8)
            labels[height // 4 : height // 2 + 1, width // 3 :] = 1
            masks = np.stack([labels == 1, labels == 2])
            seg.add(frame, masks)
            overlay.add(frame, labels)
            report.add(frame, masks)
    return paths


@pytest.mark.parametrize("folder", FOLDERS)
def test_whatever_an_archive_holds_the_results_are_valid(
    folder: str,
    shared_data: Path,
    task: Task,
    provenance: Provenance,
    tmp_path: Path,
    dciodvfy: Validate,
) -> None:
    written = 0
    for number, series in enumerate(open_study(shared_data / "data" / "dicom" / folder)):
        by = replace(provenance, key=f"{number:064x}")
        for path in write_all(series, tmp_path, task=task, provenance=by):
            assert dciodvfy(path) == [], f"{series.relative}: {path.name}"
            written += 1
    assert written >= 3


def test_a_liver_written_again_lies_on_the_same_slices(
    shared_data: Path, one_class: Task, provenance: Provenance, tmp_path: Path
) -> None:
    folder = shared_data / "data" / "dicom" / "seg_with_source_ct"
    slices = shutil.copytree(folder / "ct-3slice", tmp_path / "ct")
    (series,) = open_study(slices)
    (given,) = [path for path in folder.rglob("*.dcm") if path.name == "liver.dcm"]
    original = pydicom.dcmread(given)
    liver = dict.fromkeys(
        range(len(series.instances)), np.zeros((series.rows, series.columns), bool)
    )
    places = series.geometry.positions
    for item, plane in zip(
        original.PerFrameFunctionalGroupsSequence, original.pixel_array, strict=True
    ):
        place = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        nearest = int(np.linalg.norm(places - place, axis=1).argmin())
        if np.linalg.norm(places[nearest] - place) < 0.01:
            liver[nearest] = liver[nearest] | (plane > 0)
    assert sum(int(mask.sum()) for mask in liver.values()) > 1000
    path = tmp_path / "again.dcm"
    with SegWriter(path, series, task=one_class, provenance=provenance) as writer:
        for frame in series.frames():
            writer.add(frame, liver[frame.index][None])
    seg = highdicom.seg.segread(path)
    for instance, position in zip(series.instances, places, strict=True):
        source = pydicom.dcmread(instance.path, stop_before_pixels=True)
        np.testing.assert_allclose(source.ImagePositionPatient, position, atol=1e-6)
        pixels = seg.get_pixels_by_source_instance([instance.sop_instance_uid])[0, :, :, 0]
        index = series.instances.index(instance)
        np.testing.assert_array_equal(pixels, liver[index])


def test_a_tilted_ct_keeps_the_place_of_each_slice(
    shared_data: Path, one_class: Task, provenance: Provenance, tmp_path: Path
) -> None:
    (series,) = open_study(shared_data / "data" / "dicom" / "ct_gantry_tilt_ge")
    path = tmp_path / "seg.dcm"
    with SegWriter(path, series, task=one_class, provenance=provenance) as writer:
        for frame in series.frames():
            writer.add(frame, np.zeros((1, series.rows, series.columns), bool))
    places = {}
    for item in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence:
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        uid = source.ReferencedSOPInstanceUID
        places[uid] = list(item.PlanePositionSequence[0].ImagePositionPatient)
    assert len(places) == 28
    for instance in series.instances:
        file = pydicom.dcmread(instance.path, stop_before_pixels=True)
        np.testing.assert_allclose(
            places[file.SOPInstanceUID], list(file.ImagePositionPatient), atol=1e-6
        )
