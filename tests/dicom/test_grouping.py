"""What belongs together, in which order, and where it lies; positions are chosen by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from sam2unet_core.dicom import open_study
from sam2unet_core.errors import InputError
from sam2unet_core.media.planes import reslice, to_source
from sam2unet_core.types import Series

CT = "1.2.840.10008.5.1.4.1.1.2"
AXIAL = [1, 0, 0, 0, 1, 0]
CORONAL = [1, 0, 0, 0, 0, -1]


@pytest.fixture
def write_slice(write):
    """Write a CT slice whose every pixel is the number that its file name begins with."""

    def _write(name: str, z: float, *, orientation: list[float] = AXIAL, **attributes) -> Path:
        value = int(Path(name).name.split("-")[0])
        stored = np.full(attributes.pop("shape", (4, 6)), value, np.int16)
        settings = {
            "SOPClassUID": CT,
            "Modality": "CT",
            "ImagePositionPatient": [-10, -20, z],
            "ImageOrientationPatient": orientation,
            "PixelSpacing": [0.5, 0.25],
            "WindowCenter": 127.5,
            "WindowWidth": 255,
            "VOILUTFunction": "LINEAR_EXACT",
        }
        return write(name, stored, **(settings | attributes))

    return _write


def greys(series: Series) -> list[int]:
    return [int(frame.pixels[0, 0, 0]) for frame in series.frames()]


def test_slices_are_sorted_along_the_normal_not_by_name_or_number(write_slice) -> None:
    for number, z in ((1, 30.0), (2, 10.0), (3, 20.0)):
        path = write_slice(f"{number}-x", z, InstanceNumber=10 - number)
    (series,) = open_study(path.parent)
    assert series.kind == "volume"
    assert greys(series) == [2, 3, 1]
    assert series.geometry is not None
    assert series.geometry.positions.tolist() == [[-10, -20, z] for z in (10, 20, 30)]
    assert series.spacing_mm == (0.5, 0.25)


def test_feet_up_slices_are_sorted_along_their_own_normal(write_slice) -> None:
    for number, z in ((1, 30.0), (2, 10.0), (3, 20.0)):
        path = write_slice(f"{number}-x", z, orientation=[1, 0, 0, 0, -1, 0])
    (series,) = open_study(path.parent)
    assert greys(series) == [1, 3, 2]  # the normal points to the feet


def test_frames_without_positions_go_by_instance_number_and_none_is_dropped(write) -> None:
    for number, name in ((10, "a"), (9, "b"), (11, "c")):
        path = write(name, np.full((2, 2, 3), number, np.uint8), colour=True, InstanceNumber=number)
    (series,) = open_study(path.parent)
    assert series.kind == "stack"
    assert series.geometry is None
    assert greys(series) == [9, 10, 11]


def test_a_series_is_split_by_orientation_size_and_localiser(write_slice) -> None:
    write_slice("1-axial", 0)
    write_slice("2-axial", 5)
    write_slice("3-coronal", 0, orientation=CORONAL)
    write_slice("4-large", 0, shape=(8, 6))
    path = write_slice("5-scout", 10, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert [greys(series) for series in open_study(path.parent)] == [[1, 2], [3], [4], [5]]


def test_time_points_are_split_and_not_taken_for_slices(write_slice) -> None:
    for number in range(6):
        place, time = number % 3, number // 3
        path = write_slice(f"{number}-x", 4.0 * place, TemporalPositionIdentifier=time + 1)
    found = list(open_study(path.parent))
    assert [greys(series) for series in found] == [[0, 1, 2], [3, 4, 5]]
    assert all(series.geometry is not None and series.geometry.regular for series in found)


def test_phases_without_any_mark_are_split_in_the_order_of_acquisition(write_slice) -> None:
    for number in range(6):
        path = write_slice(f"{number}-x", 4.0 * (number % 3), InstanceNumber=number + 1)
    assert [greys(series) for series in open_study(path.parent)] == [[0, 1, 2], [3, 4, 5]]


def test_two_copies_of_a_series_in_two_folders_stay_two(write_slice) -> None:
    for folder in ("b", "a"):
        for number in (1, 2):
            path = write_slice(f"{folder}/{number}-x", 3.0 * number, SOPInstanceUID=f"1.2.{number}")
    found = list(open_study(path.parents[1]))
    assert [series.relative for series in found] == ["a/1-x", "b/1-x"]
    assert [greys(series) for series in found] == [[1, 2], [1, 2]]


def test_different_content_under_one_uid_is_never_one_series(write) -> None:
    for value in (1, 2, 3):
        path = write(f"{value}", np.full((2, 2), value, np.uint8), SOPInstanceUID="1.2.9")
    assert [greys(series) for series in open_study(path.parent)] == [[1], [2], [3]]


def test_files_without_a_series_uid_and_of_other_patients_are_not_merged(write) -> None:
    write("1", np.full((2, 2), 1, np.uint8), SeriesInstanceUID="")
    write("2", np.full((2, 2), 2, np.uint8), SeriesInstanceUID="")
    write("3", np.full((2, 2), 3, np.uint8), PatientID="A")
    path = write("4", np.full((2, 2), 4, np.uint8), PatientID="B")
    assert [greys(series) for series in open_study(path.parent)] == [[1], [2], [3], [4]]


def test_a_missing_slice_is_said(write_slice) -> None:
    for number, z in ((1, 0), (2, 2), (3, 6), (4, 8)):
        path = write_slice(f"{number}-x", z)
    (series,) = open_study(path.parent)
    assert series.warnings == ("1 slice missing",)


def multiframe(write, positions: list[float], **attributes) -> Path:
    shared, per_frame = Dataset(), []
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.25], 2
    orientation.ImageOrientationPatient = AXIAL
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    for z in positions:
        item, plane = Dataset(), Dataset()
        plane.ImagePositionPatient = [1, 2, z]
        item.PlanePositionSequence = [plane]
        per_frame.append(item)
    stored = np.zeros((len(positions), 2, 3), np.uint16)
    attributes = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1", "Modality": "CT"} | attributes
    return write("multi", stored, frames=len(positions), SharedFunctionalGroupsSequence=[shared],
                 PerFrameFunctionalGroupsSequence=per_frame, **attributes)  # fmt: skip


def test_an_enhanced_object_has_the_geometry_of_its_functional_groups(write) -> None:
    (series,) = open_study(multiframe(write, [0, 2, 4]))
    assert series.kind == "multiframe"
    assert series.geometry is not None
    np.testing.assert_allclose(
        series.geometry.affine(), [[0.25, 0, 0, 1], [0, 0.5, 0, 2], [0, 0, 2, 0], [0, 0, 0, 1]]
    )


def test_an_enhanced_time_series_is_not_a_volume(write) -> None:
    (series,) = open_study(multiframe(write, [0, 2, 0, 2]))
    assert series.geometry is not None
    assert not series.geometry.regular
    assert "several frames at one position" in series.warnings[0]


def test_ultrasound_is_measured_in_its_calibrated_region(write) -> None:
    region = Dataset()
    region.RegionSpatialFormat = 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.02, -0.05
    doppler = Dataset()
    doppler.RegionSpatialFormat, doppler.PhysicalDeltaX, doppler.PhysicalDeltaY = 3, 1.0, 1.0
    doppler.PhysicalUnitsXDirection, doppler.PhysicalUnitsYDirection = 4, 7
    stored = np.zeros((2, 2), np.uint8)
    path = write("a", stored, Modality="US", SequenceOfUltrasoundRegions=[doppler, region])
    (series,) = open_study(path)
    assert series.spacing_mm == (0.5, 0.2)  # (row, column): y, then x, in mm


def test_a_pitch_at_the_detector_is_called_that(write) -> None:
    path = write("a", np.zeros((2, 2), np.uint8), Modality="DX", ImagerPixelSpacing=[0.1, 0.2])
    (series,) = open_study(path)
    assert series.spacing_mm == (0.1, 0.2)
    assert "detector" in series.spacing_note


def test_time_points_of_two_kinds_of_image_are_split_by_both(write_slice) -> None:
    # Acquired place by place, so the order of acquisition alone would mix them.
    number = 0
    for z in (0, 4, 8):
        for kind in ("M", "P"):
            for time in (1, 2):
                path = write_slice(f"{number}-x", z, InstanceNumber=number,
                                   ImageType=["ORIGINAL", "PRIMARY", kind],
                                   TemporalPositionIdentifier=time)  # fmt: skip
                number += 1
    assert [greys(series) for series in open_study(path.parent)] == [
        [0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]  # fmt: skip


def test_a_dicom_volume_is_cut_in_another_plane_and_masks_come_back(write_slice) -> None:
    for number in (10, 20, 30):
        path = write_slice(f"{number}-x", number)
    (series,) = open_study(path.parent)
    cut = reslice(series, "coronal")
    frames = [frame.pixels[..., 0] for frame in cut.frames()]
    assert len(frames) == 4  # one per row
    assert [f[:, 0].tolist() for f in frames] == [[30, 20, 10]] * 4  # the head is up
    assert cut.spacing_mm == (10, 0.25)
    marked = np.zeros((4, 3, 6), bool)
    marked[1, 0, 2] = True  # second row from the front, top, third column
    assert np.argwhere(to_source(cut, marked)).tolist() == [[2, 1, 2]]
    assert cut.geometry is not None
    np.testing.assert_allclose(
        cut.geometry.affine() @ (2, 0, 1, 1), (-10 + 2 * 0.25, -20 + 0.5, 30, 1)
    )


def test_an_uneven_volume_is_not_cut_in_another_plane(write_slice) -> None:
    for number, z in ((1, 0), (2, 2), (3, 6)):
        path = write_slice(f"{number}-x", z)
    (series,) = open_study(path.parent)
    with pytest.raises(InputError, match="1 slice missing"):
        reslice(series, "sagittal")
    assert reslice(series, "axial") is series
