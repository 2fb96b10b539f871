"""Volumes keep their orientation; positions are worked out by hand or read with SimpleITK."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from sam2unet_core.errors import InputError
from sam2unet_core.media.planes import reslice, source_series, to_source
from sam2unet_core.media.volume import volume_series
from sam2unet_core.task import Window
from sam2unet_core.types import Series, Skipped

VALUES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4) * 10  # (column, row, slice)
RAS = np.diag([-2.0, -3.0, 5.0, 1.0])
"""Columns to the right, rows to the back: (L, P, S) of 2, 3, 5 mm in LPS."""


def nifti(path: Path, values: np.ndarray = VALUES, affine: np.ndarray = RAS, **header) -> Path:
    image = nibabel.Nifti1Image(values, affine)
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


def opened(path: Path) -> Series:
    series = volume_series(path, source_path=path.parent, relative=path.name)
    assert isinstance(series, Series), series
    return series


def stack(series: Series, **options) -> np.ndarray:
    pixels = np.stack([frame.pixels for frame in series.frames(**options)])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    return pixels[..., 0]


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_nifti_slices_are_its_third_axis_and_lie_where_it_says(tmp_path, name) -> None:
    affine = RAS.copy()
    affine[:3, 3] = (-7, -11, 13)  # RAS
    series = opened(nifti(tmp_path / name, affine=affine))
    assert (series.kind, series.frame_count, series.rows, series.columns) == ("array", 4, 3, 2)
    assert series.spacing_mm == (3, 2)
    assert series.geometry is not None
    by_hand = [[2, 0, 0, 7], [0, 3, 0, 11], [0, 0, 5, 13], [0, 0, 0, 1]]
    np.testing.assert_allclose(series.geometry.affine(), by_hand)
    np.testing.assert_array_equal(stack(series), VALUES.transpose(2, 1, 0))


def test_a_left_handed_nifti_is_regular_and_keeps_its_hand(tmp_path) -> None:
    affine = np.diag([2.0, -3.0, 5.0, 1.0])
    series = opened(nifti(tmp_path / "v.nii", affine=affine))
    assert series.geometry is not None
    assert series.geometry.regular
    np.testing.assert_allclose(series.geometry.affine()[:3, :3], np.diag([-2.0, 3.0, 5.0]))


@pytest.mark.parametrize("name", ["v.nrrd", "v.mha", "v.mhd"])
def test_itk_formats_lie_where_itk_says(tmp_path, name) -> None:
    image = sitk.GetImageFromArray(np.ascontiguousarray(VALUES.transpose(2, 1, 0)))
    image.SetSpacing((0.5, 0.75, 2))
    image.SetOrigin((1, 2, 3))
    image.SetDirection((0, 1, 0, 0, 0, -1, -1, 0, 0))
    sitk.WriteImage(image, str(tmp_path / name))
    series = opened(tmp_path / name)
    assert series.geometry is not None
    affine = series.geometry.affine()
    for index in ((0, 0, 0), (1, 2, 3), (1, 0, 2)):
        expected = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((affine @ (*index, 1))[:3], expected)
        assert stack(series)[index[::-1]] == image.GetPixel(index)


def test_deep_values_are_windowed_or_span_the_whole_volume(tmp_path) -> None:
    values = np.array([-1000, 0, 40, 1000], np.int16).reshape(4, 1, 1)
    series = opened(nifti(tmp_path / "v.nii", values))
    assert stack(series).ravel().tolist() == [0, 128, 133, 255]
    windowed = stack(series, window=Window(center=40, width=401))
    assert windowed.ravel().tolist() == [0, 102, 128, 255]


def test_the_range_a_nifti_asks_for_is_shown_and_nan_is_black(tmp_path) -> None:
    values = np.array([np.nan, 0, 5, 10, 99], np.float32).reshape(5, 1, 1)
    series = opened(nifti(tmp_path / "v.nii", values, cal_min=0, cal_max=10))
    assert stack(series).ravel().tolist() == [0, 0, 128, 255, 255]


def test_a_time_series_is_refused_not_taken_for_slices(tmp_path) -> None:
    path = nifti(tmp_path / "v.nii", np.zeros((2, 2, 3, 5), np.uint8))
    found = volume_series(path, source_path=tmp_path, relative="v.nii")
    assert isinstance(found, Skipped)
    assert found.reason == "inconsistent_geometry"
    assert "2 x 2 x 3 x 5" in found.message


def test_a_nifti_that_says_nothing_of_space_has_no_geometry(tmp_path) -> None:
    image = nibabel.Nifti1Image(VALUES, None)
    nibabel.save(image, tmp_path / "v.nii")
    series = opened(tmp_path / "v.nii")
    assert series.geometry is None
    assert series.warnings == ("the file does not state its position in space",)


def test_a_slanted_in_plane_grid_has_no_geometry_and_says_so(tmp_path) -> None:
    affine = RAS.copy()
    affine[0, 1] = 1
    series = opened(nifti(tmp_path / "v.nii", affine=affine))
    assert series.geometry is None
    assert [caution.code for caution in series.instances[0].cautions] == ["geometry_ignored"]
    np.testing.assert_array_equal(stack(series), VALUES.transpose(2, 1, 0))


def test_a_cut_file_is_said_to_be_cut(tmp_path) -> None:
    path = nifti(tmp_path / "v.nii", np.zeros((20, 20, 20), np.uint8))
    path.write_bytes(path.read_bytes()[:2000])
    series = opened(path)
    with pytest.raises(InputError, match=r"v\.nii: ") as caught:
        list(series.frames())
    assert caught.value.reason == "truncated"


def test_rgb_voxels_keep_their_colours(tmp_path) -> None:
    values = np.zeros((2, 3, 1), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    values["R"][1, 2, 0], values["G"][1, 2, 0], values["B"][1, 2, 0] = 10, 20, 30
    (frame,) = opened(nifti(tmp_path / "v.nii", values)).frames()
    assert frame.pixels[2, 1].tolist() == [10, 20, 30]
    assert frame.pixels.sum() == 60


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("axes", ["LPS", "RAS", "SLA", "PIR"])
def test_any_plane_is_hung_upright_and_lies_where_the_voxels_lie(tmp_path, plane, axes) -> None:
    # The file's axes run along the letters; one voxel is marked.
    letters = "LRPASI"
    way = {c: np.eye(3)[letters.index(c) // 2] * (-1) ** (letters.index(c) % 2) for c in letters}
    lps = np.eye(4)
    lps[:3, :3] = np.stack([way[c] * s for c, s in zip(axes, (2, 3, 5), strict=True)], axis=1)
    lps[:3, 3] = (10, 20, 30)
    values = np.zeros((4, 5, 6), np.uint8)
    values[1, 3, 4] = 200
    marked = (lps @ (1, 3, 4, 1))[:3]
    path = nifti(tmp_path / "v.nii", values, np.diag([-1, -1, 1, 1]) @ lps)
    base = opened(path)
    series = reslice(base, plane)
    cut = stack(series)
    frame, row, column = (int(v[0]) for v in np.nonzero(cut == 200))
    assert series.geometry is not None
    found = series.geometry.affine() @ (column, row, frame, 1)
    np.testing.assert_allclose(found[:3], marked)
    rows, columns = {"axial": ("P", "L"), "coronal": ("I", "L"), "sagittal": ("I", "P")}[plane]
    np.testing.assert_allclose(series.geometry.column_cosine, way[rows])
    np.testing.assert_allclose(series.geometry.row_cosine, way[columns])
    np.testing.assert_array_equal(to_source(series, cut), values.transpose(2, 1, 0))
    assert source_series(series) is base


def test_a_plane_that_is_the_files_own_changes_nothing(tmp_path) -> None:
    series = opened(nifti(tmp_path / "v.nii", affine=RAS))
    assert reslice(series, "axial") is series


@pytest.mark.parametrize("kind", ["pair", "mhd", "nhdr"])
def test_a_volume_in_two_files_is_done_again_where_either_has_changed(tmp_path, kind) -> None:
    values = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    if kind == "pair":
        path, other = tmp_path / "a.img", tmp_path / "a.hdr"
        nibabel.save(nibabel.Nifti1Pair(values, np.eye(4)), path)
    else:
        path, other = (
            tmp_path / f"a.{kind}",
            tmp_path / f"a.{'raw.gz' if kind == 'nhdr' else 'raw'}",
        )
        sitk.WriteImage(sitk.GetImageFromArray(values), str(path), useCompression=kind == "nhdr")
    found = volume_series(path, source_path=tmp_path, relative=path.name)
    assert isinstance(found, Series)
    assert found.instances[0].companions == (other,)
    assert other.is_file()
