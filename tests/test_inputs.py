"""Everything in a folder is found by what it is, and nothing is lost."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from sam2unet_core.errors import ConfigError, InputError
from sam2unet_core.inputs import find_inputs, parse_series_filter
from sam2unet_core.phantom.dicom import write_studies
from sam2unet_core.types import Series, Skipped


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> Path:
    """A folder of three phantom studies and files of other kinds."""
    out = tmp_path_factory.mktemp("inputs") / "out"
    write_studies(out, frames=3, size=(64, 96))
    folder = out / "studies"
    (folder / "README").write_text("about")
    (folder / "b.JPG").write_bytes(b"no picture")
    Image.new("RGB", (5, 3), (9, 8, 7)).save(folder / "a.png")
    (folder / "empty.png").touch()
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.eye(4)), folder / "v.nii.gz")
    return folder


def names(found: list[Series | Skipped]) -> list[tuple[str, str]]:
    return [(f.relative, f.kind if isinstance(f, Series) else f.reason) for f in found]


def test_a_folder_gives_a_series_per_picture_volume_video_and_dicom_series(studies) -> None:
    assert names(list(find_inputs([studies]))) == [
        ("README", "not_an_image"),
        ("a.png", "images"),
        ("b.JPG", "corrupt"),
        ("empty.png", "truncated"),
        ("v.nii.gz", "array"),
        ("cine/cine.dcm", "multiframe"),
        ("endoscopy/0001.dcm", "stack"),
        ("video/video.dcm", "video"),
    ]


def test_a_picture_is_one_frame(studies) -> None:
    (series,) = find_inputs([studies / "a.png"])
    assert isinstance(series, Series)
    assert (series.relative, series.frame_count, series.modality) == ("a.png", 1, None)
    (frame,) = series.frames()
    assert frame.pixels.shape == (series.rows, series.columns, 3) == (3, 5, 3)
    assert frame.pixels[2, 4].tolist() == [9, 8, 7]


def test_a_picture_that_lies_on_its_side_is_described_upright(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (30, 20)).save(tmp_path / name, exif=exif)
    for series in find_inputs([tmp_path]):
        assert isinstance(series, Series)
        (frame,) = series.frames()
        assert frame.pixels.shape == (series.rows, series.columns, 3) == (30, 20, 3)


def test_a_file_named_twice_is_taken_once(studies) -> None:
    found = list(find_inputs([studies / "a.png", studies, studies / "a.png"]))
    assert len(found) == 8


def test_a_truncated_picture_fails_with_its_name(tmp_path) -> None:
    path = tmp_path / "half.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    (series,) = find_inputs([path])
    assert isinstance(series, Series)
    with pytest.raises(InputError, match=r"^half\.png: ") as caught:
        list(series.frames())
    assert caught.value.reason == "truncated"
    assert str(tmp_path) not in str(caught.value)


def test_files_are_taken_by_what_they_hold_where_the_suffix_says_otherwise(tmp_path) -> None:
    picture = Image.new("RGB", (5, 3))
    for name, form in (("lies.png", "JPEG"), ("none", "PNG"), ("lies.mp4", "PNG"),
                       ("a.jfif", "JPEG"), ("b.WEBP", "WEBP"), ("c.jp2", "JPEG2000"),
                       ("d.pgm", "PPM"), ("e.bak", "PNG")):  # fmt: skip
        picture.save(tmp_path / name, form)
    (tmp_path / "f.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    assert dict(names(list(find_inputs([tmp_path])))) == {
        "lies.png": "images", "none": "images", "lies.mp4": "images", "a.jfif": "images",
        "b.WEBP": "images", "c.jp2": "images", "d.pgm": "images",
        "e.bak": "not_an_image", "f.heic": "not_an_image"}  # fmt: skip


@pytest.mark.parametrize("coding", ["utf-8", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.ts", "a.mts", "a.vob", "README", "a.dat"])
def test_text_that_shares_its_suffix_with_video_is_no_input(tmp_path, name, coding) -> None:
    mark = "\ufeff" if coding == "utf-16-be" else ""
    text = f"{mark}export const größe: number = 42;\n" * 9
    (tmp_path / name).write_bytes(text.encode(coding))
    assert names(list(find_inputs([tmp_path]))) == [(name, "not_an_image")]


def test_a_damaged_file_named_like_a_video_is_told_to_be_damaged(tmp_path) -> None:
    for name in ("a.mp4", "b.ts", "c.wmv"):
        (tmp_path / name).write_bytes(bytes(range(256)) * 20)
    assert [reason for _, reason in names(list(find_inputs([tmp_path])))] == ["corrupt"] * 3


def test_what_macos_lays_beside_files_is_no_input_whatever_its_suffix(tmp_path) -> None:
    double = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(4000)
    folder = tmp_path / "__MACOSX"
    folder.mkdir()
    for suffix in ("png", "jpg", "mp4", "nii.gz", "nii", "dcm", "img", "mha"):
        (tmp_path / f"._a.{suffix}").write_bytes(double)
    (folder / "._b.png").write_bytes(double)
    (folder / "c.png").write_bytes(double)  # as some programs unpack them
    (tmp_path / "d.png").write_bytes(double)
    (tmp_path / "._void.png").touch()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_bytes(b"\0\0\0\1Bud1 or [.ShellClassInfo]")
    Image.new("RGB", (5, 3)).save(tmp_path / "a.png")
    found = list(find_inputs([tmp_path]))
    assert [each.relative for each in found if isinstance(each, Series)] == ["a.png"]
    others = [each for each in found if isinstance(each, Skipped)]
    assert len(others) == 15
    assert {each.reason for each in others} == {"not_an_image"}


def test_a_picture_whose_name_is_no_utf_8_is_read(tmp_path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    with path.open("wb") as stream:
        Image.new("RGB", (5, 3), (9, 8, 7)).save(stream, "PNG")
    (series,) = find_inputs([tmp_path])
    assert isinstance(series, Series)
    (frame,) = series.frames()
    assert frame.pixels[2, 4].tolist() == [9, 8, 7]


def test_a_name_as_long_as_a_disk_takes_is_read(tmp_path) -> None:
    Image.new("RGB", (5, 3)).save(tmp_path / f"{'n' * 251}.png")
    volume = tmp_path / f"{'v' * 248}.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.eye(4)), volume)
    found = [each for each in find_inputs([tmp_path]) if isinstance(each, Series)]
    assert [len(list(series.frames())) for series in found] == [1, 4]


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        (["modality=es"], {"cine", "endoscopy", "video"}),
        (["description=*CINE*,*video"], {"cine", "video"}),
        (["modality=ES", "kind=stack"], {"endoscopy"}),
        (["uid=1.2.3*"], set()),
    ],
)
def test_series_are_chosen_by_filters(studies, texts, kept) -> None:
    found = find_inputs([studies], series_filter=parse_series_filter(texts))
    assert {f.relative.split("/")[0] for f in found if isinstance(f, Series)} == kept


@pytest.mark.parametrize("text", ["ES", "colour=red", "modality="])
def test_a_filter_of_another_form_is_refused(text) -> None:
    with pytest.raises(ConfigError, match="expected NAME=PATTERN"):
        parse_series_filter([text])


def test_volumes_are_cut_in_the_plane_asked_for_and_pictures_are_not(studies) -> None:
    found = [f for f in find_inputs([studies], plane="coronal") if isinstance(f, Series)]
    shapes = {f.kind: (f.frame_count, f.rows, f.columns) for f in found}
    assert shapes["array"] == (3, 4, 2)
    assert shapes["stack"] == (3, 64, 96)


def test_a_path_that_is_not_there_is_refused_before_anything_is_read(studies) -> None:
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        next(find_inputs([studies, studies / "nowhere"]))


def test_results_within_an_input_are_never_inputs(tmp_path) -> None:
    archive, out = tmp_path / "in", tmp_path / "in" / "out"
    for folder in (archive, out, archive / "former", archive / "notes"):
        folder.mkdir()
        Image.new("RGB", (5, 3)).save(folder / "a.png")
    for name in ("run.json", "manifest.jsonl"):
        (archive / "former" / name).touch()
    (archive / "notes" / "run.json").touch()  # alone it says nothing
    (archive / "link").symlink_to(out)
    found = names(list(find_inputs([archive], out=tmp_path / "in" / "notes" / ".." / "out")))
    assert found == [
        ("a.png", "images"),
        ("former", "not_an_image"),
        ("notes/a.png", "images"),
        ("notes/run.json", "not_an_image"),
    ]


def test_a_folder_that_is_the_output_or_holds_results_is_refused_at_once(tmp_path) -> None:
    with pytest.raises(InputError, match="both input and output"):
        find_inputs([tmp_path], out=tmp_path / "x" / "..")
    for name in ("run.1-of-2.json", "manifest.1-of-2.jsonl"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="holds results"):
        find_inputs([tmp_path])


def test_an_input_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(InputError("cut short", reason="truncated")))
    assert (str(error), error.reason) == ("cut short", "truncated")
    assert InputError("as a worker's error is made again").reason == "corrupt"
