"""DICOM in, DICOM SEG out, through the whole batch; where there are real files, on those."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from sam2unet_core.batch import Settings, run
from sam2unet_core.inputs import find_inputs
from sam2unet_core.phantom.dicom import has_video, write_studies
from sam2unet_core.segmenter import Segmenter
from tests.batch.conftest import with_weights

SENTINEL = "ZEBRAQUAGGA"
PATH_SENTINEL = "OKAPIGERENUK"


@pytest.fixture(scope="session")
def dciodvfy():
    """Return the errors that the validator finds in a file."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed: apt-get install dicom3tools")

    def errors(path: Path) -> list[str]:
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        text = done.stdout + done.stderr
        assert text.strip()
        return [line for line in text.splitlines() if line.startswith("Error")]

    return errors


@pytest.fixture
def go(segmenter):
    """Run over a path."""

    def call(source: Path, out: Path, *, used: Segmenter = segmenter, **settings):
        plane = settings.get("plane")
        items = find_inputs([source], plane=plane)
        return run(items, out, Settings(**settings), model=with_weights(used))

    return call


def manifest(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def sources(out: Path) -> dict[str, str]:
    with (out / "private" / "sources.csv").open(newline="") as stream:
        return {row["relative"]: row["id"] for row in csv.DictReader(stream)}


def by_relative(out: Path) -> dict[str, dict]:
    lines = {line["id"]: line for line in manifest(out)}
    return {relative: lines[identity] for relative, identity in sources(out).items()}


@pytest.fixture(scope="session")
def studies(tmp_path_factory) -> Path:
    """Phantom studies: single frames, a cine and, where it can be encoded, a video."""
    out = tmp_path_factory.mktemp("phantom") / "studies"
    write_studies(out, frames=6, seed=2, size=(64, 96), video=has_video())
    return out / "studies"


def test_every_kind_of_study_gets_a_valid_seg_and_hashed_names(studies, go, tmp_path, dciodvfy):
    out = tmp_path / "out"
    outcome = go(studies, out, formats=("seg", "sc", "sr"))
    assert outcome.exit_code == 0
    kinds = Counter(line["kind"] for line in manifest(out))
    assert kinds["stack"] == 6
    assert kinds["multiframe"] == 1
    written = sorted(p for p in out.rglob("*.dcm"))
    assert len(written) == 3 * (2 + has_video())
    for path in written:
        assert not dciodvfy(path)
        name = path.relative_to(out).as_posix()
        assert re.fullmatch(r"[0-9a-f]{16}/[0-9a-f]{16}/[0-9a-f]{16}\.(seg|sc|sr)\.dcm", name)


def test_stack_has_one_seg_that_every_line_of_its_instances_names(studies, go, tmp_path):
    out = tmp_path / "out"
    go(studies / "endoscopy", out)
    lines = manifest(out)
    assert len(lines) == 6
    assert len({line["outputs"][0]["path"] for line in lines}) == 1
    assert all(line["frames"] == 1 for line in lines)
    assert len({line["id"] for line in lines}) == 6


def test_seg_frames_hold_what_the_mask_pictures_of_the_same_instances_show(studies, go, tmp_path):
    out = tmp_path / "out"
    go(studies / "endoscopy", out, formats=("seg", "png"))
    (seg_path,) = out.rglob("*.seg.dcm")
    seg = highdicom.seg.segread(seg_path)
    uids = {}
    for path in sorted((studies / "endoscopy").rglob("*.dcm")):
        relative = path.relative_to(studies / "endoscopy").as_posix()
        line = by_relative(out)[relative]
        picture = next(o["path"] for o in line["outputs"] if o["kind"] == "mask")
        uids[pydicom.dcmread(path).SOPInstanceUID] = np.array(Image.open(out / picture))
    pixels = seg.get_pixels_by_source_instance(list(uids), combine_segments=True)
    np.testing.assert_array_equal(pixels, np.stack(list(uids.values())))
    assert pixels.sum() > 100


def test_a_rerun_over_dicom_writes_the_same_bytes(studies, go, tmp_path):
    out = tmp_path / "out"
    go(studies, out)
    before = {p: p.read_bytes() for p in out.rglob("*.dcm")}
    for path in before:
        path.unlink()
    go(studies, out)
    assert {p: p.read_bytes() for p in out.rglob("*.dcm")} == before


@pytest.mark.parametrize("point", ["publish:1", "publish:2", "line:2", "frame:2"])
def test_kill_and_rerun_over_dicom_give_the_bytes_of_one_clean_run(
    studies, go, run_python, tmp_path, point
):
    kinds, out, clean = ("seg", "sc", "sr", "overlay"), tmp_path / "out", tmp_path / "clean"
    script = Path(__file__).parent / "killed_run.py"
    done = run_python(script, studies, out, point, ",".join(kinds))
    assert done.returncode == -9
    clean.mkdir()
    shutil.copy(out / "run.json", clean)  # dates in DICOM are those of the first start
    go(studies, clean, formats=kinds)
    whole = {p.relative_to(clean): p.read_bytes() for p in results_in(clean)}
    assert len(whole) >= 6
    for path in results_in(out):
        assert path.read_bytes() == whole[path.relative_to(out)]
    go(studies, out, formats=kinds)
    assert {p.relative_to(out): p.read_bytes() for p in results_in(out)} == whole


def results_in(out: Path) -> list[Path]:
    return [p for p in out.rglob("*") if p.suffix in (".dcm", ".png", ".mp4")]


def test_forced_task_is_said_in_seg_report_and_run(tmp_path, go):
    source = tmp_path / "ct"
    write_cube(source)
    out = tmp_path / "out"
    go(source, out)
    assert {line["reason"] for line in manifest(out)} == {"task_mismatch"}
    forced = tmp_path / "forced"
    go(source, forced, force_task=True)
    (path,) = forced.rglob("*.seg.dcm")
    assert "forced" in str(pydicom.dcmread(path))
    assert "Forced." in (forced / "report.html").read_text()
    assert json.loads((forced / "run.json").read_text())["settings"]["force_task"] is True
    assert "Forced." not in (out / "report.html").read_text()


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
def test_a_volume_cut_in_another_plane_gives_the_seg_of_its_own_frames(
    tmp_path, go, segmenter, plane
):
    source = tmp_path / "ct"
    cube = write_cube(source)
    side = len(cube)
    used = Segmenter(
        replace(segmenter.task, image_size=(side, side)), segmenter.runtime.network, device="cpu"
    )
    found = []
    for name in ("axial", plane):
        out = tmp_path / name
        go(source, out, used=used, force_task=True, plane=name, formats=("seg", "nifti"))
        (path,) = out.rglob("*.seg.dcm")
        uids = [pydicom.dcmread(p).SOPInstanceUID for p in sorted(source.glob("*.dcm"))]
        seg = highdicom.seg.segread(path)
        found.append(seg.get_pixels_by_source_instance(uids, combine_segments=True))
        (label_map,) = out.rglob("*.nii.gz")
        found.append(label_map.read_bytes())
    np.testing.assert_array_equal(found[0], found[2])
    assert found[1] == found[3]
    np.testing.assert_array_equal(found[0], cube)


def test_no_name_of_a_patient_leaves_private_but_in_dicom_results(tmp_path, go, capfd):
    source = tmp_path / PATH_SENTINEL / "study"
    write_cube(source, tag=SENTINEL, name=PATH_SENTINEL)
    broken = source / f"{PATH_SENTINEL}-broken.dcm"
    broken.write_bytes((source / f"{PATH_SENTINEL}03.dcm").read_bytes()[:-2000])
    (source / f"{PATH_SENTINEL}.txt").write_text(SENTINEL)
    out = tmp_path / "out"
    go(source, out, force_task=True, formats=("seg", "sc", "sr", "png", "nifti", "overlay"))
    uid = pydicom.dcmread(source / f"{PATH_SENTINEL}03.dcm").SOPInstanceUID
    statuses = Counter(line["status"] for line in manifest(out))
    assert statuses["failed"] == 1
    assert statuses["skipped"] == 1
    shown = capfd.readouterr()
    texts = {"stdout": shown.out, "stderr": shown.err}
    looked_at = 0
    for path in (p for p in out.rglob("*") if "private" not in p.parts):
        assert PATH_SENTINEL not in path.relative_to(out).as_posix()
        assert SENTINEL not in path.relative_to(out).as_posix()
        if path.is_file():
            content = path.read_bytes()
            assert PATH_SENTINEL.encode() not in content, path
            if path.suffix != ".dcm":
                looked_at += 1
                assert SENTINEL.encode() not in content, path
                assert uid.encode() not in content, path
    assert looked_at > 10
    for name, text in texts.items():
        assert SENTINEL not in text, name
        assert PATH_SENTINEL not in text, name
    assert PATH_SENTINEL in (out / "private" / "sources.csv").read_text()


def test_the_whole_archive_finishes_with_one_true_line_a_file(shared_data, go, tmp_path, dciodvfy):
    archive, out = shared_data / "data" / "dicom", tmp_path / "out"
    outcome = go(archive, out, force_task=True)
    files = {p.relative_to(archive).as_posix() for p in archive.rglob("*") if p.is_file()}
    told = by_relative(out)
    assert set(told) == files
    assert len(manifest(out)) == len(files)
    assert outcome.exit_code == 3
    failed = {Path(name).name: line for name, line in told.items() if line["status"] == "failed"}
    assert failed["MR_truncated.dcm"]["reason"] == "truncated"
    for name, line in told.items():
        if line["status"] in ("done", "empty"):
            assert any(each["kind"] == "seg" for each in line["outputs"]), name
    assert {told[n]["reason"] for n in files if n.endswith("LICENSE")} == {"not_an_image"}
    assert told["seg_with_source_ct/liver.dcm"]["status"] == "skipped"
    written = list(out.rglob("*.seg.dcm"))
    assert len(written) > 100
    assert {path: found for path in written if (found := dciodvfy(path))} == {}


def test_unforced_endoscopy_is_done_and_ct_is_not(shared_data, go, tmp_path):
    for folder in ("endoscopy_secondary_capture", "ct_gantry_tilt_ge", "seg_with_source_ct"):
        go(shared_data / "data" / "dicom" / folder, tmp_path / folder)
    frames = manifest(tmp_path / "endoscopy_secondary_capture")
    assert Counter(line["status"] for line in frames) == {"done": 9}
    slices = by_relative(tmp_path / "ct_gantry_tilt_ge")
    reasons = Counter(line["reason"] for name, line in slices.items() if name.endswith(".dcm"))
    assert reasons == {"task_mismatch": 28}


def test_codec_triples_give_identical_masks_that_are_not_empty(shared_data, go, tmp_path):
    out = tmp_path / "out"
    go(shared_data / "data" / "dicom" / "endoscopy_secondary_capture", out, formats=("png",))
    lines = by_relative(out)
    for number in (1, 2, 3):
        masks = [
            np.array(Image.open(out / lines[f"VL{number}_{codec}.dcm"]["outputs"][0]["path"]))
            for codec in ("UNC", "RLE", "J2KR")
        ]
        assert masks[0].shape == (486, 756)
        assert 5000 < masks[0].sum() < masks[0].size - 5000
        np.testing.assert_array_equal(masks[0], masks[1])
        np.testing.assert_array_equal(masks[0], masks[2])


def test_tilted_ct_keeps_the_place_of_each_slice_and_gets_no_upright_volume(
    shared_data, go, tmp_path
):
    source, out = shared_data / "data" / "dicom" / "ct_gantry_tilt_ge", tmp_path / "out"
    go(source, out, force_task=True, formats=("seg", "nifti"))
    line = next(line for line in manifest(out) if line["kind"] == "volume")
    assert "no nifti: tilted by 18.5 degrees" in line["message"]
    assert (line["status"], line["reason"]) == ("failed", "inconsistent_geometry")
    assert "output_omitted" in line["warnings"]
    assert not list(out.rglob("*.nii.gz"))
    (path,) = out.rglob("*.seg.dcm")
    seg = pydicom.dcmread(path)
    headers = [pydicom.dcmread(p, stop_before_pixels=True) for p in source.glob("*.dcm")]
    expected = {h.SOPInstanceUID: [float(v) for v in h.ImagePositionPatient] for h in headers}
    assert len(seg.PerFrameFunctionalGroupsSequence) == 28
    for item in seg.PerFrameFunctionalGroupsSequence:
        place = [float(v) for v in item.PlanePositionSequence[0].ImagePositionPatient]
        derivation = item.DerivationImageSequence[0].SourceImageSequence[0]
        assert place == pytest.approx(expected[derivation.ReferencedSOPInstanceUID], abs=1e-3)


def write_cube(folder: Path, *, tag: str = "TEST", name: str = "") -> np.ndarray:
    """Write a CT of 64 axial slices with a bright box; return its `(64, 64, 64)` labels."""
    side = 64
    labels = np.zeros((side, side, side), np.uint8)
    labels[10:30, 20:50, 5:25] = 1
    folder.mkdir(parents=True)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for index in range(side):
        made = pydicom.Dataset()
        made.file_meta = pydicom.dataset.FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = CTImageStorage
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = (
            study,
            series,
            frame,
        )
        made.Modality, made.InstanceNumber = "CT", index + 1
        made.PatientName = made.PatientID = tag
        for keyword in (
            "StudyDescription",
            "SeriesDescription",
            "InstitutionName",
            "OperatorsName",
            "AccessionNumber",
            "ReferringPhysicianName",
            "StationName",
            "ImageComments",
            "ProtocolName",
            "PatientComments",
            "Manufacturer",
            "BodyPartExamined",
        ):
            setattr(made, keyword, tag)
        made.add_new(0x00091001, "LO", tag)
        made.Rows = made.Columns = side
        made.PixelSpacing, made.SliceThickness = [2, 2], 2
        made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        made.ImagePositionPatient = [-60, -70, 2 * index]
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
        made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
        made.PixelRepresentation = 1
        made.RescaleIntercept, made.RescaleSlope = 0, 1
        made.WindowCenter, made.WindowWidth = 50, 100
        made.PixelData = (labels[index].astype("<i2") * 90 + 5).tobytes()
        made.save_as(folder / f"{name}{index:02d}.dcm", enforce_file_format=True)
    return labels
