"""Every file is found or named, whatever it is; nothing a header says leaks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from sam2unet_core.dicom import open_study, scan
from sam2unet_core.dicom.files import quiet
from sam2unet_core.errors import InputError
from sam2unet_core.types import Series, Skipped


def test_a_folder_of_everything_loses_no_file(write, tmp_path) -> None:
    write("sub/picture", np.zeros((2, 2), np.uint8))
    folder = tmp_path / "in"
    write("seg", np.zeros((2, 2), np.uint8), SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    write("slide", np.zeros((2, 2), np.uint8), SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.6")
    (folder / "README").write_text("8 bit text, no image")
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "mark.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    (folder / "sub" / "half.dcm").write_bytes((folder / "seg").read_bytes()[:300])
    found = list(scan(folder))
    reasons = {f.relative: f.reason for f in found if isinstance(f, Skipped)}
    assert [s.relative for s in found if isinstance(s, Series)] == ["sub/picture"]
    assert set(reasons) == {"seg", "slide", "README", "empty.dcm", "mark.dcm", "sub/half.dcm"}
    assert reasons["seg"] == reasons["slide"] == "not_an_image"
    assert reasons["README"] == "not_dicom"
    assert reasons["empty.dcm"] == "truncated"
    assert set(reasons.values()) <= {"not_an_image", "not_dicom", "corrupt", "truncated"}


def test_no_message_or_warning_quotes_the_header(write, tmp_path, capfd, recwarn) -> None:
    path = write("a", np.zeros((2, 2), np.uint8), PatientName="SENTINEL", PatientID="SENTINEL",
                 SpecificCharacterSet="ISO_IR 100", SeriesDescription="SENTINEL")  # fmt: skip
    content = path.read_bytes()
    bad = content.replace(b"1.2.3.4", b"SENTIN4").replace(b"ISO_IR 100", b"SENTIN_100")
    path.write_bytes(bad)
    (tmp_path / "in" / "b").write_bytes(content[:-30])
    messages = []
    for found in scan(tmp_path / "in"):
        if isinstance(found, Skipped):
            messages.append(found.message)
        else:
            messages.extend([*found.warnings, *(str(f.index) for f in found.frames())])
            found.dataset(0)
    seen = "".join((*messages, *capfd.readouterr(), *(str(w.message) for w in recwarn.list)))
    assert "SENTIN" not in seen


def test_a_dicomdir_leads_to_its_files_and_nowhere_else(write, tmp_path) -> None:
    inside = write("IMAGES/ONE", np.full((2, 2), 7, np.uint8))
    write("../outside", np.zeros((2, 2), np.uint8))
    records = []
    for parts in (["IMAGES", "ONE"], ["IMAGES", "GONE"], ["..", "outside"]):
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        with quiet():
            record.ReferencedFileID = parts
        records.append(record)
    index = tmp_path / "in" / "DICOMDIR"
    directory = Dataset()
    directory.DirectoryRecordSequence = records
    directory.SOPClassUID = "1.2.840.10008.1.3.10"
    directory.SOPInstanceUID = "1.2.3"
    from pydicom.dataset import FileMetaDataset

    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    with quiet():
        directory.save_as(index, enforce_file_format=True)
    found = list(scan(index))
    series = [f for f in found if isinstance(f, Series)]
    skipped = [f.message for f in found if isinstance(f, Skipped)]
    assert [s.instances[0].path for s in series] == [inside]
    assert [s.relative for s in series] == ["IMAGES/ONE"]
    assert sorted(skipped) == [
        "GONE: referenced by the DICOMDIR, but there is no such file",
        "the DICOMDIR names a file outside its folder",
    ]


def test_the_header_for_writers_has_no_pixels(write) -> None:
    (series,) = open_study(write("a", np.zeros((2, 2), np.uint8), StudyID="7"))
    dataset = series.dataset(0)
    assert dataset is not None
    assert dataset.StudyID == "7"
    assert "PixelData" not in dataset


def test_an_instances_hash_is_of_its_bytes(write) -> None:
    import hashlib

    path = write("a", np.zeros((2, 2), np.uint8))
    (series,) = open_study(path)
    assert series.instances[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_path_that_is_not_there_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        list(open_study(tmp_path / "nothing"))


def test_a_header_given_out_warns_of_nothing_later(write, recwarn) -> None:
    path = write("a", np.zeros((2, 2), np.uint8), StudyID="1")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1.2.3.4", b"SENTIN4"))
    (series,) = open_study(path)
    dataset = series.dataset(0)
    assert dataset is not None
    assert dataset.SeriesInstanceUID == "SENTIN4"
    assert not recwarn.list


@pytest.mark.skipif(sys.platform == "win32", reason="needs Linux: links and pipes")
def test_links_are_followed_once_and_pipes_are_not_opened(write, tmp_path) -> None:
    path = write("a", np.zeros((2, 2), np.uint8))
    folder = path.parent
    (tmp_path / "elsewhere").mkdir()
    path.rename(tmp_path / "elsewhere" / "b")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    (folder / "gone").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "pipe")
    found = list(scan(folder))
    assert [f.relative for f in found if isinstance(f, Series)] == ["link/b"]
    assert {f.relative: f.message for f in found if isinstance(f, Skipped)} == {
        "gone": "gone: a broken link",
        "pipe": "pipe: neither a file nor a folder",
    }


def test_a_folder_that_may_not_be_listed_is_named_and_the_rest_goes_on(write) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None or os.geteuid() != 0:
        pytest.skip("needs Linux and root, to become another user")
    made = write("a", np.zeros((2, 2), np.uint8))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copy(made, folder / "z.dcm")
        (folder / "closed").mkdir()
        shutil.copy(made, folder / "closed" / "a.dcm")
        (folder / "closed").chmod(0o000)
        shutil.copy(made, folder / "secret.dcm")
        (folder / "secret.dcm").chmod(0o000)
        code = (
            "import sys; from sam2unet_core.dicom import scan\n"
            "for f in scan(sys.argv[1]): print(f.relative, getattr(f, 'message', 'series'))"
        )
        # root without the right to pass over permissions
        command = [setpriv, "--bounding-set=-dac_override,-dac_read_search", sys.executable]
        run = subprocess.run(
            [*command, "-c", code, name], capture_output=True, text=True, check=False
        )
        (folder / "closed").chmod(0o755)
    assert run.stdout.splitlines() == [
        "secret.dcm secret.dcm: cannot be read (Permission denied)",
        "closed closed: the folder cannot be listed (Permission denied)",
        "z.dcm series",
    ], run.stderr


def test_memory_does_not_grow_with_the_number_of_frames(write) -> None:
    # 400 frames of 2 MB each: a file with a hole instead of pixels.
    count, side = 400, 1024
    path = write("a", np.zeros((1, side, side), np.uint16), frames=1, NumberOfFrames=count,
                 WindowCenter=5, WindowWidth=9)  # fmt: skip
    start = path.read_bytes().index(b"\xe0\x7f\x10\x00OW")
    with path.open("r+b") as stream:
        stream.seek(start + 8)
        stream.write((count * side * side * 2).to_bytes(4, "little"))
        stream.truncate(start + 12 + count * side * side * 2)
    (series,) = open_study(path)
    tracemalloc.start()
    frames = sum(1 for _ in series.frames(indices=range(0, series.frame_count, 10)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert frames == 40
    assert peak < 30e6


@pytest.mark.parametrize("copied", ["as it is", "lower case", "with a suffix", "both"])
def test_a_dicomdir_finds_files_that_were_renamed_in_copying(tmp_path, write, copied) -> None:
    from pydicom.fileset import FileSet

    with quiet():
        media = FileSet()
        for number in (1, 2):
            media.add(write(f"{number}.dcm", np.zeros((2, 2), np.uint8), PatientID="P",
                            StudyDate="20240101", StudyTime="120000", StudyID="1",
                            SeriesNumber=1, InstanceNumber=number))  # fmt: skip
        media.write(tmp_path / "disc")
    for path in sorted((tmp_path / "disc").rglob("*"), reverse=True):
        if path.name == "DICOMDIR" or copied == "as it is":
            continue
        name = path.name if copied == "with a suffix" else path.name.lower()
        suffix = ".dcm" if path.is_file() and copied in ("with a suffix", "both") else ""
        path.rename(path.with_name(name + suffix))
    found = list(scan(tmp_path / "disc" / "DICOMDIR"))
    assert [type(each) for each in found] == [Series]
    assert found[0].frame_count == 2
