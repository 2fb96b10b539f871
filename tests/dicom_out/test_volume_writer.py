"""NIfTI label maps lie where their source lies, as an independent reader has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from sam2unet_core.errors import DataError, GeometryError
from sam2unet_core.geometry import Geometry
from sam2unet_core.media.volume_writer import LabelMapWriter
from sam2unet_core.types import Series

Make = Callable[..., Series]
MaskOf = Callable[..., NDArray[np.bool_]]


@pytest.fixture
def write_map(tmp_path: Path, mask_of: MaskOf) -> Callable[..., Path]:
    def write(series: Series, *, stride: int = 1, name: str = "labels.nii.gz") -> Path:
        path = tmp_path / name
        with LabelMapWriter(path, series, note="research only; task forced") as writer:
            for frame in series.frames(indices=range(0, series.frame_count, stride)):
                first, second = mask_of(frame.index)
                labels = np.where(first, 1, np.where(second, 2, 0)).astype(np.uint8)
                writer.add(frame, labels)
        return path

    return write


@pytest.mark.parametrize("name", ["ct_volume", "enhanced_ct"])
def test_simpleitk_finds_each_labelled_pixel_in_place(
    name: str, make_series: Make, write_map: Callable[..., Path], mask_of: MaskOf
) -> None:
    image = SimpleITK.ReadImage(write_map(make_series(name)))
    labels = SimpleITK.GetArrayFromImage(image)  # (frame, row, column)
    indices = np.argwhere(labels == 1)
    got = [image.TransformIndexToPhysicalPoint(i[::-1].tolist()) for i in indices]
    expected = [  # the column index goes to +y by 0.5 mm, the row index to -z by 0.8 mm
        (40 - 3 * frame, -60.5 + 0.5 * column, 120.25 - 0.8 * row)
        for frame in range(4)
        for row, column in np.argwhere(mask_of(frame)[0])
    ]
    assert len(expected) > 100
    np.testing.assert_allclose(sorted(got), sorted(expected), atol=1e-3)
    assert set(np.unique(labels)) == {0, 1, 2}


def test_frames_stored_out_of_spatial_order_lie_where_they_belong(
    make_series: Make, write_map: Callable[..., Path], mask_of: MaskOf
) -> None:
    series, order = make_series("enhanced_ct"), [2, 0, 3, 1]
    assert series.geometry is not None
    shuffled = replace(series.geometry, positions=series.geometry.positions[order])
    assert not shuffled.regular
    image = SimpleITK.ReadImage(write_map(replace(series, geometry=shuffled)))
    labels = SimpleITK.GetArrayFromImage(image)
    got = [image.TransformIndexToPhysicalPoint(i[::-1].tolist()) for i in np.argwhere(labels == 1)]
    expected = [
        (40 - 3 * order[frame], -60.5 + 0.5 * column, 120.25 - 0.8 * row)
        for frame in range(4)
        for row, column in np.argwhere(mask_of(frame)[0])
    ]
    np.testing.assert_allclose(sorted(got), sorted(expected), atol=1e-3)


def test_nibabel_has_the_world_to_the_right_front_and_head(
    make_series: Make, write_map: Callable[..., Path]
) -> None:
    image = nibabel.load(write_map(make_series("ct_volume")))
    assert image.shape == (53, 37, 4)
    assert nibabel.aff2axcodes(image.affine) == ("P", "I", "R")
    np.testing.assert_allclose(image.affine[:3, 3], [-40, 60.5, 120.25])
    assert image.header.get_zooms() == pytest.approx((0.5, 0.8, 3))
    assert bytes(image.header["descrip"]).rstrip(b"\0") == b"research only; task forced"
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)


def test_frames_that_were_not_looked_at_are_background(
    make_series: Make, write_map: Callable[..., Path], mask_of: MaskOf
) -> None:
    image = nibabel.load(write_map(make_series("ct_volume"), stride=2))
    labels = np.asarray(image.dataobj)
    assert labels.shape == (53, 37, 4)
    np.testing.assert_array_equal(labels[:, :, 2].T == 1, mask_of(2)[0])
    assert not labels[:, :, [1, 3]].any()


def test_the_same_map_gives_the_same_bytes(
    make_series: Make, write_map: Callable[..., Path]
) -> None:
    series = make_series("ct_volume")
    first, again = write_map(series, name="a.nii.gz"), write_map(series, name="b.nii.gz")
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes()[4:8] == bytes(4)  # no time


def test_what_no_affine_describes_is_refused(
    make_series: Make, write_map: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(GeometryError, match="tilted by 13"):
        write_map(make_series("ct_tilted"))
    with pytest.raises(GeometryError, match="no position in space"):
        write_map(make_series("endoscopy_video"))
    series = make_series("ct_volume")
    gap = np.delete(np.arange(5.0), 2)[:, None] * [0, 0, 2.0]
    upright = Geometry(gap, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (1.0, 1.0))
    with pytest.raises(GeometryError, match="1 slice missing"):
        write_map(replace(series, geometry=upright))
    assert list(tmp_path.iterdir()) == []


def test_maps_that_do_not_fit_are_refused(make_series: Make, tmp_path: Path) -> None:
    series = make_series("ct_volume")
    frames = list(series.frames())
    blank = np.zeros((37, 53), np.uint8)

    def write(*given: tuple[int, NDArray[np.uint8]]) -> None:
        with LabelMapWriter(tmp_path / "a.nii.gz", series) as writer:
            for index, labels in given:
                writer.add(frames[index], labels)

    with pytest.raises(DataError, match=r"labels of \(53, 37\)"):
        write((0, blank.T.copy()))
    with pytest.raises(DataError, match="frame 0 after frame 1"):
        write((1, blank), (0, blank))
    with pytest.raises(DataError, match="no frame was segmented"):
        write()
    assert list(tmp_path.iterdir()) == []
