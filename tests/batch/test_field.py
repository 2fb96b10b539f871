"""What archives hold in the field: odd names, pipes, archives, and files broken at random.

In a batch nothing but the disk and the user stops a run, and no file goes without a line.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import shutil
import socket
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import generate_uid

from sam2unet_core.batch.folder import Status
from sam2unet_core.errors import Reason
from sam2unet_core.inputs import find_inputs
from sam2unet_core.types import WARNINGS

posix = pytest.mark.skipif(sys.platform == "win32", reason="names and kinds of files of Unix")
Go = Callable[..., Any]


def square() -> np.ndarray:
    pixels = np.full((64, 96, 3), 20, np.uint8)
    pixels[8:28, 20:40] = 250
    return pixels


def manifest(out: Path) -> list[dict[str, Any]]:
    """Return the lines, read as strictly as any reader of JSON does."""
    text = (out / "manifest.jsonl").read_bytes().decode("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def slice_file(path: Path, **attributes: Any) -> Path:
    """Write a slice of 64 x 96 with a bright square."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", generate_uid()
    dataset.Modality, dataset.PatientID, dataset.PatientName = "OT", "P", "Drawn^Person"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 64, 96, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = square()[..., 0].tobytes()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def go(run_batch: Go) -> Go:
    """Run over what is found at paths, as the command does."""

    def call(*paths: Path, out: Path, scratch: Path | None = None, **options: Any) -> Any:
        items = find_inputs(paths, out=out, scratch=scratch)
        return run_batch(paths[0], out, items=items, **{"force_task": True, **options})

    return call


@posix
def test_a_name_that_is_no_utf8_is_segmented_and_what_comes_after_it(go, tmp_path) -> None:
    folder = tmp_path / "in"
    for name in (b"a.png", b"caf\xe9.png", b"\xff\xfe/b.png", b"lines\r\n.png", b"z.png"):
        path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            Image.fromarray(square()).save(stream, "PNG")
    for _ in range(2):  # the second time it goes on, with all done
        outcome = go(folder, out=tmp_path / "out")
        assert outcome.statuses == {"done": 5}
    written = {p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.rglob("*.mask.png")}
    expected = {"a.png", "caf%E9.png", "%FF%FE/b.png", "lines\r\n.png", "z.png"}
    assert written == {f"{name}.mask.png" for name in expected}
    assert {o["path"] for line in manifest(tmp_path / "out") for o in line["outputs"]} == written
    with (tmp_path / "out/private/sources.csv").open(encoding="utf-8", newline="") as table:
        assert {row["relative"] for row in csv.DictReader(table)} == expected


@posix
def test_pipes_sockets_and_circles_are_named_and_never_opened(go, tmp_path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(square()).save(folder / "a.png")
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "pipe.dcm")
    (folder / "circle").symlink_to(folder / "circle")
    (folder / "gone").symlink_to(folder / "nothing")
    (folder / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(folder)  # a socket's path may be short only
        try:
            listener.bind("socket")
        finally:
            os.chdir(before)
        outcome = go(folder, out=tmp_path / "out")
    assert outcome.statuses == {"done": 1, "skipped": 6}
    assert outcome.reasons == {"not_an_image": 6}
    assert all(line["source_sha256"] is None for line in manifest(tmp_path / "out")
               if line["status"] == "skipped")  # fmt: skip


@posix
def test_a_pipe_that_is_named_itself_is_refused(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Exception, match="neither a file nor a folder"):
        find_inputs([tmp_path / "pipe"])


def test_a_name_too_long_for_its_result_says_what_helps(go, tmp_path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(square()).save(folder / f"{'n' * 246}.png")
    go(folder, out=tmp_path / "out")
    (line,) = manifest(tmp_path / "out")
    assert (line["status"], line["reason"]) == ("failed", "write_failed")
    assert "--pseudonymize" in line["message"]
    outcome = go(folder, out=tmp_path / "short", names="pseudonymize")
    assert outcome.statuses == {"done": 1}


def study(folder: Path) -> Path:
    slice_file(folder / "s" / "one.dcm")
    Image.fromarray(square()).save(folder / "s" / "picture.png")
    (folder / "README").write_text("hello")
    return folder


def packed(kind: str, folder: Path, path: Path) -> Path:
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for each in sorted(p for p in folder.rglob("*") if p.is_file()):
                archive.write(each, each.relative_to(folder))
        return path
    with tarfile.open(path, f"w:{kind.partition('.')[2]}") as archive:
        archive.add(folder, "")
    return path


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_an_archive_is_as_good_as_its_folder(go, tmp_path, kind) -> None:
    archive = packed(kind, study(tmp_path / "in"), tmp_path / f"export.{kind}")
    out = tmp_path / "out"
    for number in range(2):  # unpacked elsewhere the second time, and the same files all the same
        outcome = go(archive, out=out, scratch=tmp_path / f"scratch{number}")
        assert outcome.statuses == {"done": 2, "skipped": 1}
        assert outcome.frames == (2, 0)[number]
    assert (out / "s" / "picture.png.mask.png").is_file()
    assert len(list(out.rglob("*.seg.dcm"))) == 1
    with (out / "private/sources.csv").open(encoding="utf-8") as table:
        sources = {row["source"] for row in csv.DictReader(table)}
    inside = ("s/one.dcm", "s/picture.png", "README")
    assert sources == {f"{os.path.realpath(archive)}!/{name}" for name in inside}


def test_a_single_file_in_gz_is_unpacked(go, tmp_path) -> None:
    path = slice_file(tmp_path / "in" / "one.dcm")
    (tmp_path / "one.dcm.gz").write_bytes(gzip.compress(path.read_bytes()))
    outcome = go(tmp_path / "one.dcm.gz", out=tmp_path / "out", scratch=tmp_path / "scratch")
    assert outcome.statuses == {"done": 1}


def test_a_compressed_volume_is_no_archive(go, tmp_path) -> None:
    volume = nibabel.Nifti1Image(np.repeat(square()[:, :, :1], 2, 2), np.eye(4))
    nibabel.save(volume, tmp_path / "v.nii.gz")
    outcome = go(tmp_path / "v.nii.gz", out=tmp_path / "out", scratch=tmp_path / "scratch")
    assert outcome.statuses == {"done": 1}
    assert manifest(tmp_path / "out")[0]["kind"] == "array"


@pytest.mark.parametrize("kind", ["zip", "gz", "tar.gz"])
def test_a_bomb_is_refused_before_it_fills_the_disk(go, tmp_path, kind) -> None:
    bomb, zeros = tmp_path / f"bomb.{kind}", bytes(1 << 27)
    if kind == "gz":
        bomb.write_bytes(gzip.compress(zeros))
    else:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "zeros").write_bytes(zeros)
        packed(kind, tmp_path / "in", bomb)
    go(bomb, out=tmp_path / "out", scratch=tmp_path / "scratch")
    (line,) = manifest(tmp_path / "out")
    assert (line["status"], line["reason"]) == ("failed", "too_large")
    assert not [p for p in (tmp_path / "scratch").rglob("*") if p.is_file()]


def test_members_that_lead_out_of_an_archive_are_left_out_by_name(go, tmp_path) -> None:
    good = slice_file(tmp_path / "in" / "one.dcm").read_bytes()
    archive = tmp_path / "bad.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("../out.dcm", "/abs.dcm", "C:/drive.dcm", "good.dcm"):
            info = tarfile.TarInfo(name)
            info.size = len(good)
            tar.addfile(info, io.BytesIO(good))
        link = tarfile.TarInfo("link.dcm")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    scratch = tmp_path / "deep" / "scratch"
    outcome = go(archive, out=tmp_path / "out", scratch=scratch)
    assert outcome.statuses == {"done": 1, "failed": 4}
    kept = {p.name for p in (tmp_path / "deep").rglob("*.dcm")}
    assert kept == {"good.dcm"}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_that_ends_early_is_truncated(go, tmp_path, kind) -> None:
    archive = packed(kind, study(tmp_path / "in"), tmp_path / f"export.{kind}")
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) * 2 // 3])
    outcome = go(archive, out=tmp_path / "out", scratch=tmp_path / "scratch")
    assert outcome.exit_code == 3
    assert "truncated" in outcome.reasons


def bitmaps(folder: Path) -> Path:
    folder.mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(square()).save(folder / f"{name}.bmp")
    return folder


def test_one_broken_file_of_a_zip_is_named_and_the_others_are_done(go, tmp_path) -> None:
    archive = packed("zip", bitmaps(tmp_path / "in"), tmp_path / "a.zip")
    content = bytearray(archive.read_bytes())
    content[content.index(b"a.bmp") + 60] ^= 0xFF  # within the data of the first file
    archive.write_bytes(bytes(content))
    outcome = go(archive, out=tmp_path / "out", scratch=tmp_path / "scratch")
    assert outcome.statuses == {"done": 2, "failed": 1}
    assert not (tmp_path / "scratch" / "0" / "a.bmp").exists()


def test_a_way_of_packing_that_is_not_read_is_told(go, tmp_path) -> None:
    archive = packed("zip", bitmaps(tmp_path / "in"), tmp_path / "a.zip")
    content = bytearray(archive.read_bytes())
    for sign, place in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        content[content.index(sign) + place] = 9  # Deflate64, of the first file
    archive.write_bytes(bytes(content))
    outcome = go(archive, out=tmp_path / "out", scratch=tmp_path / "scratch")
    assert outcome.statuses == {"done": 2, "failed": 1}
    (line,) = [each for each in manifest(tmp_path / "out") if each["status"] == "failed"]
    assert "uses an unsupported compression method: unpack it yourself" in line["message"]


def test_an_empty_archive_is_told(go, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w"):
        pass
    outcome = go(tmp_path / "a.zip", out=tmp_path / "out", scratch=tmp_path / "scratch")
    assert outcome.reasons == {"not_an_image": 1}


def test_a_tar_whose_header_is_a_bomb_is_not_read_into_memory(go, tmp_path) -> None:
    header = tarfile.TarInfo("header")
    header.type, header.size = tarfile.XHDTYPE, 1 << 25
    archive = tmp_path / "pax.tar.gz"
    with gzip.open(archive, "wb") as stream:
        info = tarfile.TarInfo("first.bmp")
        stream.write(info.tobuf() + header.tobuf() + bytes(1 << 25))
    go(archive, out=tmp_path / "out", scratch=tmp_path / "scratch")
    (line,) = manifest(tmp_path / "out")
    assert (line["reason"], "a header in it has 32 MiB" in line["message"]) == ("too_large", True)


@pytest.mark.parametrize("kind", ["links", "files"])
def test_too_many_members_are_refused_whatever_they_are(go, tmp_path, monkeypatch, kind) -> None:
    monkeypatch.setattr("sam2unet_core.archives.MAX_MEMBERS", 3)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(5):
            info = tarfile.TarInfo(f"{number}.bmp")
            info.type = tarfile.SYMTYPE if kind == "links" else tarfile.REGTYPE
            tar.addfile(info)
    outcome = go(tmp_path / "a.tar", out=tmp_path / "out", scratch=tmp_path / "scratch")
    assert outcome.reasons["too_large"] == 1
    assert sum(outcome.statuses.values()) <= 4


def test_a_colon_in_a_folders_name_leads_nowhere(go, tmp_path) -> None:
    content = (bitmaps(tmp_path / "in") / "a.bmp").read_bytes()
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("2024-01-01 12:30/a.bmp")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    outcome = go(tmp_path / "a.tar", out=tmp_path / "out", scratch=tmp_path / "scratch")
    assert outcome.statuses == {"done": 1}


def test_an_archive_within_a_folder_is_told_and_left_alone(go, tmp_path) -> None:
    folder = study(tmp_path / "in")
    packed("zip", folder / "s", folder / "more.zip")
    outcome = go(folder, out=tmp_path / "out", scratch=tmp_path / "scratch")
    assert outcome.statuses == {"done": 2, "skipped": 2}
    messages = [line["message"] for line in manifest(tmp_path / "out")]
    assert "the file: an archive in a folder: name it as an input" in messages


WARNED = st.sampled_from([b"", b"nan", b"1e400", b"-1", b"0", b"1,5", b"x\\y", b"\xff\0", b"65536"])
KEYWORDS = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration", "NumberOfFrames"),
    *("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "VOILUTFunction"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("InstanceNumber", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality"),
    *("ImageType", "FrameTime", "CineRate", "AcquisitionTime", "EchoTime", "PixelPaddingValue"),
    *("SpecificCharacterSet", "PatientName", "StudyDate", "BurnedInAnnotation", "PatientID"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "VOILUTSequence"),
    *("RedPaletteColorLookupTableDescriptor", "SequenceOfUltrasoundRegions"),
)  # fmt: skip
SYNTAXES = st.sampled_from([
    *("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5"),
    *(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 90, 102, 110, 201)),
])  # fmt: skip


def spoil_header(draw: st.DataObject, path: Path) -> None:
    """Put something else into elements of a header, or take them out."""
    dataset = dcmread(slice_file(path))
    values = st.one_of(st.none(), WARNED, st.binary(max_size=24))
    elements = st.tuples(st.sampled_from(KEYWORDS), values)
    for keyword, value in draw.draw(st.lists(elements, max_size=5)):
        tag = Tag(tag_for_keyword(keyword))
        if tag in dataset:
            del dataset[tag]
        if value is not None:
            vr = draw.draw(st.sampled_from(["DS", "IS", "US", "UN", "FD", "LO", "OW"]))
            dataset._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True, True)
    with contextlib.suppress(Exception):  # pydicom does not write all that there could be
        dataset.save_as(path, implicit_vr=False, little_endian=True)
    if draw.draw(st.booleans()):
        content = path.read_bytes()
        syntax = draw.draw(SYNTAXES).encode()
        path.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", syntax.ljust(20, b"\0")[:20], 1))


def spoil_bytes(draw: st.DataObject, path: Path) -> None:
    """Change bytes of a file, and cut it off."""
    content = bytearray(path.read_bytes())
    for place in draw.draw(st.lists(st.integers(0, len(content) - 1), max_size=6)):
        content[place] = draw.draw(st.integers(0, 255))
    kept = draw.draw(st.integers(0, len(content)) if draw.draw(st.booleans()) else st.none())
    path.write_bytes(bytes(content[:kept]))


def make_picture(_draw: st.DataObject, path: Path) -> None:
    formats = {".png": "PNG", ".jpg": "JPEG", ".tif": "TIFF", ".webp": "WEBP", ".gif": "GIF"}
    Image.fromarray(square()).save(path, formats.get(path.suffix, "BMP"))


def make_volume(_draw: st.DataObject, path: Path) -> None:
    kept = path.with_name("v.nii")
    nibabel.save(nibabel.Nifti1Image(np.repeat(square()[:, :, :1], 2, 2), np.eye(4)), kept)
    kept.rename(path)


MAKERS = {".dcm": spoil_header, ".nii": make_volume}
NAMES = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20)
SUFFIXES = st.sampled_from([*MAKERS, ".png", ".jpg", ".tif", ".webp", ".gif", ".bmp", ".mp4", ""])


def draw_file(draw: st.DataObject, folder: Path, number: int) -> None:
    name, suffix = draw.draw(NAMES), draw.draw(SUFFIXES)
    raw = f"{number}{name}".encode("utf-8", "surrogatepass")
    path = folder / os.fsdecode(raw[:200] + suffix.encode())
    kind = draw.draw(st.sampled_from(["file", "file", "file", "file", "pipe", "link", "folder"]))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(draw.draw(st.sampled_from([path.name, ".", "nothing"])))
    elif kind == "folder":
        path.mkdir()
    else:
        MAKERS.get(suffix, make_picture)(draw, path)
        if draw.draw(st.booleans()):
            spoil_bytes(draw, path)


@pytest.fixture
def folders() -> Iterator[Callable[[], Path]]:
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp()))
        return made[-1]

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


@posix
@settings(
    max_examples=40,
    phases=[Phase.explicit, Phase.generate],
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(draw=st.data())
def test_whatever_is_in_a_folder_every_file_gets_its_line_and_nothing_stops_the_run(
    go, folders, draw
) -> None:
    folder, out = folders(), folders() / "out"
    Image.fromarray(square()).save(folder / "healthy.png")
    slice_file(folder / "healthy.dcm")
    for number in range(draw.draw(st.integers(1, 4))):
        draw_file(draw, folder, number)
    outcome = go(folder, out=out)
    assert outcome.stopped == ""
    lines = manifest(out)
    for line in lines:
        assert line["status"] in set(Status)
        assert line["reason"] is None or line["reason"] in set(Reason)
        assert line["reason"] != "internal", (out / "private/errors.log").read_text()
        assert set(line["warnings"]) <= set(WARNINGS)
        assert "Drawn^Person" not in line["message"]
    with (out / "private/sources.csv").open(encoding="utf-8", newline="") as table:
        rows = {row["id"]: row["relative"] for row in csv.DictReader(table)}
    by_name = {rows[line["id"]]: line for line in lines}
    assert by_name["healthy.png"]["status"] == by_name["healthy.dcm"]["status"] == "done"
    files = {
        each for each in folder.iterdir() if not each.is_dir() and not each.name.startswith("._")
    }
    distinct = {os.path.realpath(each) if each.is_file() else str(each) for each in files}
    assert len(lines) >= len(distinct)
