"""Paths that are odd: one plain answer each, and the worker goes on."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sam2unet_core.worker.failures import without_names
from sam2unet_core.worker.roots import Roots

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="needs Linux or macOS: links and pipes"
)


@pytest.fixture
def place(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one picture that the worker may read."""
    folder = root / tmp_path_factory.mktemp("odd").name
    folder.mkdir()
    Image.new("RGB", (64, 48), (200, 90, 80)).save(folder / "a.png")
    return folder


def failed(event: dict[str, Any], kind: str) -> str:
    assert (event["event"], event["kind"]) == ("failed", kind), event
    return event["message"]


@pytest.mark.parametrize("name", ["pipe", "pipe.png", "pipe.dcm", "pipe.mhd", "pipe.zip"])
def test_a_pipe_is_refused_at_once_by_every_operation(worker: Any, place: Path, name: str) -> None:
    path = str(place / name)
    os.mkfifo(path)
    reference = {"file": "x.raw", "dtype": "|u1", "shape": [1, 1, 2, 2], "order": "C"}
    for operation, fields in (
        ("inspect", {"path": path}),
        ("read_frames", {"path": path}),
        ("segment", {"input": {"path": path}}),
        ("write_seg", {"source": path, "masks": reference, "output": "x.dcm"}),
        ("load", {"weights": path}),
        ("load", {"bundle": path}),
    ):
        message = failed(worker.ask(operation, **fields), "unreadable")
        assert message == "neither a file nor a folder (a pipe or a device)"


def test_pipes_in_a_folder_are_passed_over(worker: Any, place: Path) -> None:
    for name in ("b.png", "c.dcm", "d.mp4", "e.mhd", "f", "g.nii.gz"):
        os.mkfifo(place / name)
    found = worker.result("inspect", path=str(place))
    assert [series["frames"] for series in found["series"]] == [1]


def test_a_volume_whose_voxels_are_a_pipe_never_hangs(worker: Any, place: Path) -> None:
    os.mkfifo(place / "voxels.raw")
    header = "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\n"
    (place / "v.mhd").write_text(f"{header}ElementDataFile = voxels.raw\n")
    for path in (place / "v.mhd", place):
        found = worker.result("inspect", path=str(path))
        assert [series["kind"] for series in found["series"] if series["kind"] == "volume"] == []


def test_links_in_a_circle_are_no_way_out_and_hide_nothing(worker: Any, place: Path) -> None:
    (place / "one").symlink_to(place / "two")
    (place / "two").symlink_to(place / "one")
    (place / "self.png").symlink_to(place / "self.png")
    (place / "deeper").mkdir()
    (place / "deeper" / "up").symlink_to(place, target_is_directory=True)
    found = worker.result("inspect", path=str(place))
    assert [series["frames"] for series in found["series"]] == [1]
    for name in ("one", "self.png"):
        failed(worker.ask("inspect", path=str(place / name)), "not_found")
        failed(worker.ask("load", weights=str(place / name)), "not_found")


def test_a_root_that_is_a_circle_allows_nothing_and_names_are_still_hidden(tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    Roots([circle])
    assert without_names(f"{circle}: broken", [circle]) == "the file: broken"


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: file names of any bytes")
def test_a_name_that_is_no_utf_8_is_a_name_like_others(worker: Any, place: Path) -> None:
    folder = os.fsencode(place) + b"/caf\xe9"
    Path(os.fsdecode(folder)).mkdir()
    named = folder + b"/\xff.png"
    (place / "a.png").rename(os.fsdecode(named))
    for path in (named, folder):
        (series,) = worker.result("inspect", path=os.fsdecode(path))["series"]
        assert (series["rows"], series["columns"]) == (48, 64)
        assert worker.result("segment", input={"path": os.fsdecode(path)})["frames"] == 1
    message = failed(worker.ask("load", weights=os.fsdecode(named)), "bad_weights")
    assert "caf" not in message
    assert "\udcff" not in message


@pytest.mark.parametrize("text", ["\ud800", "x\udfff\ud800.png", "/\ud800/x"])
def test_text_that_can_be_no_path_is_not_allowed(worker: Any, place: Path, text: str) -> None:
    failed(worker.ask("inspect", path=f"{place}/{text}"), "not_allowed")


def test_an_archive_is_skipped_with_a_word(worker: Any, place: Path) -> None:
    with zipfile.ZipFile(place / "study.zip", "w") as archive:
        archive.write(place / "a.png", "a.png")
    found = worker.result("inspect", path=str(place / "study.zip"))
    assert (found["series"], found["skipped"]) == ([], {"not_an_image": 1})
    (why,) = found["skipped_because"]
    assert why == "an archive; unpack it first, and give its folder"
    message = failed(worker.ask("segment", input={"path": str(place / "study.zip")}), "not_found")
    assert message == f"series 0 of 0 at that path; {why}"


@pytest.mark.parametrize("start", [b"Rar!\x1a\x07\x01\x00", b"7z\xbc\xaf\x27\x1c"])
def test_an_archive_that_nothing_here_unpacks_does_not_hide_what_lies_beside_it(
    worker: Any, place: Path, start: bytes
) -> None:
    (place / "other.bin").write_bytes(start + bytes(600))
    found = worker.result("inspect", path=str(place))
    assert [series["frames"] for series in found["series"]] == [1]
    assert found["skipped"] == {"not_an_image": 1}
    assert found["skipped_because"] == ["an archive; unpack it first, and give its folder"]


def test_why_files_are_no_inputs_is_said_once_and_without_their_names(
    worker: Any, place: Path
) -> None:
    for name in ("Smith_John.txt", "Doe_Jane.txt"):
        (place / name).write_text("notes")
    found = worker.result("inspect", path=str(place))
    assert len(found["series"]) == 1
    assert found["skipped"] == {"not_an_image": 2}
    (why,) = found["skipped_because"]
    assert "Smith" not in why
    assert "Doe" not in why
