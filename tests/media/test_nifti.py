"""NIfTI and its relatives: a label map lies where its source does, to every reader."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from sam2unet_core.inputs import find_inputs
from sam2unet_core.media.volume import volume_series
from sam2unet_core.media.volume_writer import LabelMapWriter
from sam2unet_core.types import Series, Skipped

VALUES = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
LABELS = (VALUES % 3).astype(np.uint8)
SFORM = np.array([[2.0, 0, 0, 7], [0, 3, 0, 8], [0, 0, 5, 9], [0, 0, 0, 1]])
TURNED = np.array([[0, -3.0, 0, 1], [2, 0, 0, 2], [0, 0, 5, 3], [0, 0, 0, 1]])


def opened(path: Path) -> Series:
    series = volume_series(path, source_path=path.parent, relative=path.name)
    assert isinstance(series, Series), series
    return series


def written(series: Series, path: Path) -> Path:
    with LabelMapWriter(path, series, note="research only") as writer:
        for frame in series.frames():
            writer.add(frame, np.ascontiguousarray(LABELS[:, :, frame.index].T))
    return path


def nifti(
    path: Path,
    *,
    values: np.ndarray = VALUES,
    forms: dict[str, tuple[np.ndarray, int]] | None = None,
    **fields: object,
) -> Path:
    image = nibabel.Nifti1Image(values, None)
    image.header.set_zooms((2, 3, 5)[: values.ndim] + (1,) * (values.ndim - 3))
    for name, (matrix, code) in (forms or {}).items():
        getattr(image, f"set_{name}")(matrix, code)
    nibabel.save(image, path)
    return patched(path, **fields)


def patched(path: Path, **fields: object) -> Path:
    """Set fields of a header to what nibabel would not write."""
    packed = path.suffix == ".gz"
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
    return path


def in_space(path: Path) -> list[object]:
    """Return origin, direction and spacing, by ITK."""
    image = sitk.ReadImage(str(path))
    return [np.round(v, 5).tolist() for v in
            (image.GetOrigin(), image.GetDirection(), image.GetSpacing())]  # fmt: skip


@pytest.mark.parametrize(("forms", "fields"), [
    ({"qform": (TURNED, 1), "sform": (SFORM, 2)}, {}),
    ({"qform": (TURNED, 1)}, {}),
    ({"sform": (SFORM, 4)}, {}),
    ({}, {}),
    ({"qform": (SFORM, 1), "sform": (SFORM, 1)}, {"xyzt_units": 1}),
    ({"qform": (SFORM, 1), "sform": (SFORM, 1)}, {"xyzt_units": 3}),
    ({"qform": (SFORM, 3), "sform": (TURNED, 0)}, {"xyzt_units": 10}),
])  # fmt: skip
def test_a_label_map_lies_where_its_source_does_to_nibabel_and_itk(tmp_path, forms, fields) -> None:
    source = nifti(tmp_path / "v.nii.gz", forms=forms, **fields)
    found = written(opened(source), tmp_path / "m.nii.gz")
    assert in_space(found) == in_space(source)
    one, other = nibabel.load(source), nibabel.load(found)
    np.testing.assert_array_equal(one.affine, other.affine)
    for name in ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x",
                 "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units"):  # fmt: skip
        np.testing.assert_array_equal(one.header[name], other.header[name])
    np.testing.assert_array_equal(one.header["pixdim"][:4], other.header["pixdim"][:4])
    np.testing.assert_array_equal(np.asarray(other.dataobj), LABELS)
    assert other.get_data_dtype() == np.uint8


def test_a_sheared_volume_is_segmented_and_its_label_map_keeps_its_affine(tmp_path) -> None:
    for number, place in enumerate([(0, 1), (0, 2)]):  # within slices; from slice to slice
        sheared = SFORM.copy()
        sheared[place] = 1.5
        source = nifti(tmp_path / f"{number}.nii", forms={"sform": (sheared, 2)})
        series = opened(source)
        found = nibabel.load(written(series, tmp_path / f"{number}m.nii.gz"))
        np.testing.assert_allclose(found.affine, sheared)
        np.testing.assert_array_equal(np.asarray(found.dataobj), LABELS)
    in_slices = opened(tmp_path / "0.nii")
    assert [c.code for c in in_slices.instances[0].cautions] == ["geometry_ignored"]
    assert in_slices.spacing_mm is None  # an area would be wrong


def test_a_volume_that_does_not_say_where_it_lies_says_so(tmp_path) -> None:
    series = opened(nifti(tmp_path / "v.nii"))
    (caution,) = series.instances[0].cautions
    assert caution.code == "geometry_ignored"
    assert "codes of qform and sform are 0" in caution.message
    assert series.geometry is None
    assert series.spacing_mm == (3, 2)


def test_a_place_that_cannot_be_is_left_out_and_the_next_best_taken(tmp_path) -> None:
    broken = SFORM.copy()
    broken[0, 3] = np.nan
    source = nifti(tmp_path / "v.nii", forms={"qform": (SFORM, 1), "sform": (SFORM, 1)},
                   srow_x=broken[0])  # fmt: skip
    series = opened(source)
    assert [c.code for c in series.instances[0].cautions] == ["value_ignored"]
    assert series.geometry is not None
    np.testing.assert_allclose(series.geometry.positions[0], (-7, -8, 9))
    found = nibabel.load(written(series, tmp_path / "m.nii.gz"))
    assert found.header["sform_code"] == 0
    np.testing.assert_allclose(found.affine, SFORM)


@pytest.mark.parametrize("fields", [
    {"quatern_b": 0.9, "quatern_c": 0.9}, {"qoffset_x": np.nan}])  # fmt: skip
def test_a_quaternion_that_cannot_be_leaves_the_voxels_readable(tmp_path, fields) -> None:
    source = nifti(tmp_path / "v.nii", forms={"qform": (SFORM, 1)}, **fields)
    series = opened(source)
    assert [c.code for c in series.instances[0].cautions] == ["geometry_ignored"]
    assert len(list(series.frames())) == 6
    found = nibabel.load(written(series, tmp_path / "m.nii.gz"))
    assert (found.header["qform_code"], found.header["sform_code"]) == (0, 0)


@pytest.mark.parametrize(("values", "shape"), [
    (VALUES[:, :, 0], (4, 5)), (VALUES[..., None], (4, 5, 6))])  # fmt: skip
def test_pictures_and_single_time_points_keep_their_place(tmp_path, values, shape) -> None:
    source = nifti(tmp_path / "v.nii", values=values,
                   forms={"qform": (TURNED, 1), "sform": (TURNED, 1)})  # fmt: skip
    found = written(opened(source), tmp_path / "m.nii.gz")
    assert nibabel.load(found).shape == shape
    assert in_space(found) == in_space(source)
    np.testing.assert_allclose(nibabel.load(found).affine, nibabel.load(source).affine)


def test_a_big_endian_source_and_nifti_2(tmp_path) -> None:
    image = nibabel.Nifti1Image(VALUES, TURNED)
    swapped = nibabel.Nifti1Image(VALUES, TURNED, image.header.as_byteswapped(">"))
    nibabel.save(swapped, tmp_path / "big.nii")
    assert (tmp_path / "big.nii").read_bytes()[:4] == (348).to_bytes(4, "big")
    fine = TURNED.copy()
    fine[0, 3] = 1 + 2**-40  # more than 32 bits hold
    nibabel.save(nibabel.Nifti2Image(VALUES, fine), tmp_path / "two.nii.gz")
    for name, affine in (("big.nii", TURNED), ("two.nii.gz", fine)):
        series = opened(tmp_path / name)
        assert series.instances[0].cautions == ()
        found = nibabel.load(written(series, tmp_path / "m.nii.gz"))
        np.testing.assert_array_equal(found.affine, affine)
        np.testing.assert_array_equal(np.asarray(found.dataobj), LABELS)


def test_texts_and_extensions_of_a_source_are_not_carried_over(tmp_path) -> None:
    image = nibabel.Nifti1Image(VALUES, SFORM)
    for name in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[name] = b"SENTINEL"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"SENTINEL" * 4))
    nibabel.save(image, tmp_path / "v.nii")
    found = written(opened(tmp_path / "v.nii"), tmp_path / "m.nii.gz")
    assert b"SENTINEL" not in gzip.decompress(found.read_bytes())


@pytest.mark.parametrize("name", ["v.nrrd", "v.mha", "v.mhd"])
def test_label_maps_of_other_volumes_lie_where_itk_says(tmp_path, name) -> None:
    image = sitk.GetImageFromArray(np.ascontiguousarray(VALUES.T))
    image.SetSpacing((0.5, 0.75, 2))
    image.SetOrigin((1, 2, 3))
    image.SetDirection((0, 1, 0, 0, 0, -1, -1, 0, 0))
    sitk.WriteImage(image, str(tmp_path / name))
    found = written(opened(tmp_path / name), tmp_path / "m.nii.gz")
    assert in_space(found) == in_space(tmp_path / name)


def test_the_label_map_of_a_flat_picture_lies_where_itk_says(tmp_path) -> None:
    image = sitk.GetImageFromArray(np.ascontiguousarray(VALUES[:, :, 0].T))
    image.SetSpacing((0.5, 0.75))
    image.SetOrigin((1, 2))
    image.SetDirection((0, 1, -1, 0))
    sitk.WriteImage(image, str(tmp_path / "v.mha"))
    found = written(opened(tmp_path / "v.mha"), tmp_path / "m.nii.gz")
    assert in_space(found) == in_space(tmp_path / "v.mha")


def test_an_nrrd_that_says_nothing_of_space_says_so(tmp_path) -> None:
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 5 6\nencoding: raw\nendian: little\n"
    voxels = VALUES.astype("<i2").tobytes(order="F")
    space = "space: left-posterior-superior\nspace directions: (2,0,0) (0,3,0) (0,0,5)\n"
    for name, more, codes in (("a.nrrd", "spacings: 2 3 5\n", ["value_assumed"]),
                              ("b.nrrd", space, [])):  # fmt: skip
        (tmp_path / name).write_bytes(f"{head}{more}\n".encode() + voxels)
        series = opened(tmp_path / name)
        assert [c.code for c in series.instances[0].cautions] == codes
        found = written(series, tmp_path / "m.nii.gz")
        assert in_space(found) == in_space(tmp_path / name)


def test_a_sheared_nrrd_keeps_its_affine(tmp_path) -> None:
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 5 6\nencoding: raw\nendian: little\n"
    space = "space: left-posterior-superior\nspace directions: (2,0,0) (1,3,0) (0,0,5)\n"
    voxels = VALUES.astype("<i2").tobytes(order="F")
    (tmp_path / "v.nrrd").write_bytes(f"{head}{space}space origin: (7,8,9)\n\n".encode() + voxels)
    found = nibabel.load(written(opened(tmp_path / "v.nrrd"), tmp_path / "m.nii.gz"))
    by_hand = [[-2, -1, 0, -7], [0, -3, 0, -8], [0, 0, 5, 9], [0, 0, 0, 1]]  # to right, front
    np.testing.assert_allclose(found.affine, by_hand)
    assert int(found.header["qform_code"]) == 0  # a quaternion holds no shear


@pytest.mark.parametrize(("kind", "names"), [
    (nibabel.Nifti1Pair, ("v.img", "v.hdr")),
    (nibabel.Nifti1Pair, ("v.img.gz", "v.hdr.gz")),
    (nibabel.Spm2AnalyzeImage, ("v.img", "v.hdr")),
])  # fmt: skip
def test_a_pair_is_one_input_whichever_file_is_named(tmp_path, kind, names) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    image = kind(VALUES, None)
    image.header.set_zooms((2, 3, 5))
    nibabel.save(image, folder / names[0])
    assert {p.name for p in folder.iterdir()} - {"v.mat"} == set(names)
    for paths in ([folder], [folder / names[0]], [folder / names[1]],
                  [folder / n for n in names]):  # fmt: skip
        found = list(find_inputs(paths))
        (series,) = (f for f in found if isinstance(f, Series))
        assert all(f.reason == "not_an_image" for f in found if isinstance(f, Skipped))
        assert series.relative == names[0]
        assert series.spacing_mm == (3, 2)
        pixels = np.stack([frame.pixels[..., 0] for frame in series.frames()])
        assert pixels.shape == (6, 5, 4)
        assert pixels[0, 0, 0] == 0
        assert pixels[5, 4, 3] == 255
    mask = written(series, tmp_path / "m.nii.gz")
    assert in_space(mask) == in_space(folder / names[0])


def test_half_a_pair_is_no_input(tmp_path) -> None:
    nibabel.save(nibabel.Nifti1Pair(VALUES, SFORM), tmp_path / "v.img")
    shutil.copy(tmp_path / "v.img", tmp_path / "disk.img")
    (tmp_path / "scene.hdr").write_bytes(b"#?RADIANCE\n")
    found = {f.relative: f for f in find_inputs([tmp_path])}
    assert isinstance(found["v.img"], Series)
    assert found["v.hdr"].message == "v.hdr: the header of v.img, which is read with it"
    assert found["disk.img"].message.endswith("no NIfTI or Analyze header (.hdr) beside it")
    assert found["scene.hdr"].reason == "not_an_image"


@pytest.mark.parametrize("name", ["v.mgh", "v.mgz", "V.MGZ"])
def test_freesurfers_volumes_keep_their_place(tmp_path, name) -> None:
    nibabel.save(nibabel.MGHImage(VALUES, TURNED.astype(np.float32)), tmp_path / name)
    series = opened(tmp_path / name)
    assert series.geometry is not None
    np.testing.assert_allclose(series.geometry.positions[0], (-1, -2, 3), atol=1e-5)
    found = nibabel.load(written(series, tmp_path / "m.nii.gz"))
    np.testing.assert_allclose(found.affine, nibabel.load(tmp_path / name).affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(found.dataobj), LABELS)


def test_compression_is_told_by_content(tmp_path) -> None:
    nifti(tmp_path / "v.nii", forms={"sform": (SFORM, 1)})
    plain = (tmp_path / "v.nii").read_bytes()
    (tmp_path / "packed.nii").write_bytes(gzip.compress(plain))
    (tmp_path / "plain.nii.gz").write_bytes(plain)
    expected = np.stack([f.pixels for f in opened(tmp_path / "v.nii").frames()])
    for name in ("packed.nii", "plain.nii.gz"):
        found = np.stack([f.pixels for f in opened(tmp_path / name).frames()])
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", [b"caf\xe9.nii.gz", b"caf\xe9.nrrd", b"caf\xe9.mha"])
def test_a_name_that_is_no_utf_8_is_read_all_the_same(tmp_path, name) -> None:
    plain = tmp_path / f"v.{name.decode('latin-1').split('.', 1)[1]}"
    if plain.suffix == ".gz":
        nifti(plain, forms={"sform": (SFORM, 1)})
    else:
        sitk.WriteImage(sitk.GetImageFromArray(np.ascontiguousarray(VALUES.T)), str(plain))
    path = tmp_path / os.fsdecode(name)
    plain.rename(path)
    series = opened(path)
    assert len(list(series.frames())) == 6
    assert written(series, tmp_path / "m.nii.gz").is_file()


def test_a_detached_header_of_such_a_name_is_refused_with_the_reason(tmp_path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(VALUES), str(tmp_path / "v.mhd"))
    path = tmp_path / os.fsdecode(b"caf\xe9.mhd")
    (tmp_path / "v.mhd").rename(path)
    found = volume_series(path, source_path=tmp_path, relative="x")
    assert isinstance(found, Skipped)
    assert "not UTF-8" in found.message


@pytest.mark.parametrize(("fields", "codes"), [
    ({"scl_slope": np.nan, "scl_inter": np.nan}, []),  # as nibabel says: none
    ({"scl_slope": 0.0, "scl_inter": 3.0}, []),  # as the standard says: none
    ({"scl_slope": np.inf, "scl_inter": 0.0}, ["value_ignored"]),
    ({"scl_slope": 1.0, "scl_inter": np.nan}, ["value_ignored"]),
    ({"cal_min": np.nan, "cal_max": 100.0}, ["value_ignored"]),
    ({"cal_min": 0.0, "cal_max": np.inf}, ["value_ignored"]),
    ({"cal_min": 5.0, "cal_max": 5.0}, ["value_ignored"]),
    ({"cal_min": 9.0, "cal_max": 5.0}, ["value_ignored"]),
    ({"cal_min": 0.0, "cal_max": 0.0}, []),
])  # fmt: skip
def test_a_scaling_or_range_that_cannot_be_is_left_out(tmp_path, fields, codes) -> None:
    series = opened(nifti(tmp_path / "v.nii", forms={"sform": (SFORM, 1)}, **fields))
    assert [c.code for c in series.instances[0].cautions] == codes
    found = np.stack([frame.pixels[..., 0] for frame in series.frames()])
    expected = np.rint(VALUES.T / VALUES.max() * 255)  # 0 to 119
    np.testing.assert_array_equal(found, expected)
