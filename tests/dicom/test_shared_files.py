"""Real files: many SOP classes and encodings, broken ones among them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from sam2unet_core.dicom import open_study, scan
from sam2unet_core.task import Window
from sam2unet_core.types import Series, Skipped

pytestmark = pytest.mark.filterwarnings("ignore")
REASONS = {"not_dicom", "not_an_image", "truncated", "corrupt", "unsupported_transfer_syntax"}


@pytest.fixture(scope="module")
def dicom_folder(shared_data: Path) -> Path:
    return shared_data / "data" / "dicom"


def named(folder: Path, name: str) -> np.ndarray:
    """Return the frames of the file of that name, `(N, H, W, 3)`."""
    (path,) = folder.rglob(name)
    (series,) = open_study(path)
    return np.stack([frame.pixels for frame in series.frames()])


def test_every_file_is_accounted_for_once_and_only_one_frame_does_not_decode(dicom_folder) -> None:
    files = sorted(p for p in dicom_folder.rglob("*") if p.is_file())
    seen: list[Path] = []
    failed: dict[str, str] = {}
    for found in scan(dicom_folder):
        if isinstance(found, Skipped):
            assert found.reason in REASONS
            seen.append(found.path)
            continue
        seen.extend(instance.path for instance in found.instances)

        def note(index: int, error, series: Series = found) -> None:
            failed[series.instances[index].path.name] = error.reason

        for frame in found.frames(on_error=note):
            assert frame.pixels.shape == (found.rows, found.columns, 3)
            assert frame.pixels.dtype == np.uint8
    assert sorted(seen) == files
    assert failed == {
        "JPEG2000-embedded-sequence-delimiter.dcm": "corrupt",
    }


def test_the_tilted_ct_says_its_tilt_and_its_two_spacings(dicom_folder) -> None:
    (series,) = open_study(dicom_folder / "ct_gantry_tilt_ge")
    assert len(series.instances) == 28
    geometry = series.geometry
    assert geometry is not None
    assert geometry.tilt_degrees == pytest.approx(18.5, abs=0.01)  # Gantry/Detector Tilt
    steps = np.diff(geometry.positions[:, 2])
    assert steps[0] == pytest.approx(4.22)
    assert steps[-1] == pytest.approx(7.38)
    assert any("tilted by 18.5" in text for text in series.warnings)
    assert any("uneven" in text for text in series.warnings)


def test_three_encodings_of_an_endoscopy_frame_are_the_same_picture(dicom_folder) -> None:
    for number in (1, 2, 3):
        raw, rle, jpeg2000 = (
            named(dicom_folder, f"VL{number}_{kind}.dcm") for kind in ("UNC", "RLE", "J2KR")
        )
        assert raw.std() > 20
        np.testing.assert_array_equal(raw, rle)
        np.testing.assert_array_equal(raw, jpeg2000)


@pytest.mark.parametrize(
    ("one", "other", "tolerance"),
    [
        ("MR_small.dcm", "MR_small_RLE.dcm", 0),
        ("MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm", 0),
        ("MR_small.dcm", "MR_small_jp2klossless.dcm", 0),
        ("MR_small.dcm", "MR_small_bigendian.dcm", 0),
        ("emri_small.dcm", "emri_small_jpeg_2k_lossless.dcm", 0),
        ("SC_rgb.dcm", "SC_rgb_16bit.dcm", 0),
        ("SC_rgb.dcm", "SC_rgb_rle_32bit.dcm", 0),
        ("SC_rgb.dcm", "SC_rgb_jpeg_dcmtk.dcm", 6),
        ("SC_rgb.dcm", "SC_ybr_full_uncompressed.dcm", 6),
        ("color-pl.dcm", "color-px.dcm", 0),
        ("gdcm-US-ALOKA-16.dcm", "gdcm-US-ALOKA-16_big.dcm", 0),
        ("OBXXXX1A.dcm", "OBXXXX1A_rle.dcm", 0),
        ("OBXXXX1A.dcm", "OBXXXX1A_expb.dcm", 0),
        ("US1_UNCI.dcm", "US1_J2KI.dcm", 8),
        ("SC_rgb_jpeg.dcm", "SC_rgb_jpeg_dcmd.dcm", 0),
        ("MR2_UNCR.dcm", "MR2_J2KR.dcm", 0),
    ],
)
def test_encodings_of_one_picture_agree(dicom_folder, one, other, tolerance) -> None:
    first, second = named(dicom_folder, one).astype(int), named(dicom_folder, other).astype(int)
    assert first.std() > 0.5
    assert np.abs(first - second).max() <= tolerance


@pytest.mark.parametrize(
    "name", ["J2K_pixelrep_mismatch.dcm", "693_J2KR.dcm", "bad_sequence.dcm", "explicit_VR-UN.dcm"]
)
def test_hounsfield_units_are_those_that_itk_reads(dicom_folder, name) -> None:
    (path,) = dicom_folder.rglob(name)
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0].astype(float)
    (series,) = open_study(path)
    (frame,) = series.frames(window=Window(center=0, width=2001))
    expected = np.rint(np.clip((values + 0.5) / 2000 + 0.5, 0, 1) * 255)
    dataset = series.dataset(0)
    assert dataset is not None
    padding = dataset.get("PixelPaddingValue")
    seen = np.ones(values.shape, bool) if padding is None else frame.pixels[..., 0] > 0
    assert seen.mean() > 0.2
    assert np.abs(frame.pixels[..., 0][seen] - expected[seen]).max() <= 1


def test_the_source_of_a_segmentation_is_an_even_volume(dicom_folder) -> None:
    found = list(open_study(dicom_folder / "seg_with_source_ct"))
    assert len(found) == 1
    assert found[0].geometry is not None
    assert found[0].geometry.regular
    image = sitk.ReadImage([str(i.path) for i in found[0].instances])
    affine = found[0].geometry.affine()
    np.testing.assert_allclose(affine[:3, 3], image.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(
        np.linalg.norm(affine[:3, :3], axis=0), image.GetSpacing(), atol=1e-4
    )


def test_the_ultrasound_cine_has_its_frames_pitch_and_clock(dicom_folder) -> None:
    (series,) = open_study(dicom_folder / "ultrasound_multiframe")
    assert (series.kind, series.frame_count) == ("multiframe", 65)
    dataset = series.dataset(0)
    assert dataset is not None
    region = dataset.SequenceOfUltrasoundRegions[1]  # the first is the whole screen, uncalibrated
    assert series.spacing_mm == pytest.approx(
        (10 * abs(region.PhysicalDeltaY), 10 * abs(region.PhysicalDeltaX)), abs=1e-5
    )
    frames = list(series.frames(indices=range(0, series.frame_count, 32)))
    assert [f.number for f in frames] == [1, 33, 65]
    assert frames[0].time_s == 0


def test_reading_broken_headers_warns_of_nothing(dicom_folder) -> None:
    (path,) = dicom_folder.rglob("bad_sequence.dcm")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for series in open_study(path):
            list(series.frames())
    assert [str(w.message) for w in caught] == []
