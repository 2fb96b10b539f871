"""Greys of a volume: as before where its values are sound, and never lost to one bad voxel."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from sam2unet_core.dicom.grey import shown_range
from sam2unet_core.errors import InputError
from sam2unet_core.media.planes import reslice
from sam2unet_core.media.volume import volume_series
from sam2unet_core.task import Window
from sam2unet_core.types import Series

SOUND = np.linspace(-1000, 1000, 40 * 30 * 5).reshape(40, 30, 5)
"""Values that a healthy volume has, 6000 voxels."""


def opened(path: Path, values: np.ndarray) -> Series:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    series = volume_series(path, source_path=path.parent, relative=path.name)
    assert isinstance(series, Series)
    return series


def shown(series: Series, window: Window | None = None) -> tuple[np.ndarray, list[set[str]]]:
    """Return the greys `(column, row, slice)` and the codes of each frame."""
    frames = list(series.frames(window=window))
    greys = np.stack([frame.pixels[..., 0].T for frame in frames], axis=2)
    return greys, [{caution.code for caution in frame.cautions} for frame in frames]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int32])
def test_a_sound_volume_spans_its_lowest_to_its_highest_value(tmp_path, dtype) -> None:
    values = SOUND.astype(dtype)
    greys, codes = shown(opened(tmp_path / "v.nii", values))
    np.testing.assert_array_equal(greys, np.rint((values / 2000 + 0.5) * 255))
    assert codes == [set()] * 5


def test_a_bright_tail_is_part_of_a_sound_volume(tmp_path) -> None:
    values = SOUND.copy()
    values[5:8, 0, 0] = 6000  # a vessel: the others fill two sevenths of the range
    greys, codes = shown(opened(tmp_path / "v.nii", values))
    np.testing.assert_array_equal(greys, np.rint(((values - 2500) / 7000 + 0.5) * 255))
    assert codes == [set()] * 5


def test_a_few_voxels_that_differ_from_an_empty_ground_are_what_is_shown(tmp_path) -> None:
    values = np.zeros((40, 30, 5), np.int16)
    values[3, 3, 3] = 700
    greys, codes = shown(opened(tmp_path / "v.nii", values))
    assert greys[3, 3, 3] == 255
    assert codes == [set()] * 5


@pytest.mark.parametrize("outlier", [1e9, -1e9, 3e38, -32768])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int16])
def test_one_voxel_far_off_does_not_take_the_greys_of_all_others(tmp_path, dtype, outlier) -> None:
    if dtype != np.float32:
        outlier = np.clip(outlier, np.iinfo(dtype).min, np.iinfo(dtype).max)
    values = SOUND.astype(dtype)
    values[7, 7, 2] = outlier
    greys, codes = shown(opened(tmp_path / "v.nii", values))
    expected = np.rint((SOUND + 1000) / 2000 * 255)
    expected[7, 7, 2] = 255 if outlier > 0 else 0
    assert np.abs(greys - expected).max() <= 1
    assert codes == [{"window_guessed"}] * 5


def test_outliers_of_a_volume_and_of_a_dicom_frame_are_told_apart_by_one_rule(tmp_path) -> None:
    values = SOUND.astype(np.float32)
    values[7, 7, 2], values[8, 8, 3] = 1e6, -1e6
    (low, high, _) = shown_range(values)
    greys, _ = shown(opened(tmp_path / "v.nii", values))
    expected = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)
    np.testing.assert_array_equal(greys, expected)


@pytest.mark.parametrize("count", [64, 200, 1000, 1024])
def test_one_voxel_far_off_among_few_is_set_aside_too(tmp_path, count) -> None:
    values = np.linspace(0, 255, count).astype(np.float32).reshape(count, 1, 1)
    values[count // 2] = 1e9
    greys, codes = shown(opened(tmp_path / "v.nii", values))
    step = 255 / (count - 1)  # the lowest and the second highest are left of the others
    assert np.abs(greys - np.clip(values, 0, 255)).max() <= 2 * step + 1
    assert codes == [{"window_guessed"}]


def test_voxels_that_are_no_numbers_are_black_and_told_frame_by_frame(tmp_path) -> None:
    values = SOUND.astype(np.float32)
    values[5, 5, 1], values[6, 5, 1], values[7, 5, 1] = np.nan, np.inf, -np.inf
    values[:, :, 3] = np.nan
    values[0, 0, 0], values[39, 29, 4] = -1000, 1000
    greys, codes = shown(opened(tmp_path / "v.nii", values))
    expected = np.rint((SOUND + 1000) / 2000 * 255)
    expected[5:8, 5, 1] = 0
    expected[:, :, 3] = 0
    np.testing.assert_array_equal(greys, expected)
    assert codes == [set(), {"not_finite"}, set(), {"not_finite"}, set()]


def test_a_frame_without_any_number_says_so(tmp_path) -> None:
    values = SOUND.astype(np.float32)
    values[:, :, 3] = np.nan
    frames = list(opened(tmp_path / "v.nii", values).frames(window=Window(0, 2000)))
    (caution,) = frames[3].cautions
    assert caution.message.startswith("all voxels are not finite")


def test_a_volume_without_any_number_is_refused(tmp_path) -> None:
    series = opened(tmp_path / "v.nii", np.full((4, 4, 4), np.nan, np.float32))
    for window in (None, Window(40, 400)):
        with pytest.raises(InputError, match=r"v\.nii: no voxel is finite") as caught:
            list(series.frames(window=window))
        assert caught.value.reason == "corrupt"


def test_complex_voxels_are_refused(tmp_path) -> None:
    series = opened(tmp_path / "v.nii", np.ones((4, 4, 4), np.complex64))
    with pytest.raises(InputError, match="complex voxels; save"):
        list(series.frames())


def test_what_was_guessed_is_known_in_another_plane_too(tmp_path) -> None:
    values = SOUND.astype(np.float32)
    values[7, 7, 2], values[8, 7, 2] = 1e9, np.nan
    frames = list(reslice(opened(tmp_path / "v.nii", values), "coronal").frames())
    assert {c.code for c in frames[0].cautions} == {"window_guessed", "not_finite"}
