"""Data sets listed, paired and checked: every problem is named before anything runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from sam2unet_core.data import check_samples, read_dataset, read_groups
from sam2unet_core.errors import DataError
from sam2unet_core.task import Task

Pair = Callable[..., None]


def test_images_and_masks_are_paired_by_relative_name_whatever_the_suffix(
    tmp_path: Path, add: Pair, task: Task
) -> None:
    add("p2/a", image=".png")
    add("p1/a", image=".JPG")
    add("b.x", mask=".gif")
    samples = read_dataset(tmp_path)
    assert [sample.name for sample in samples] == ["b.x", "p1/a", "p2/a"]
    assert [sample.group for sample in samples] == ["b.x", "p1/a", "p2/a"]
    assert samples[1].image == tmp_path / "images/p1/a.JPG"
    assert samples[1].mask == tmp_path / "masks/p1/a.png"
    check_samples(samples, task)


def test_masks_may_lie_in_labels(tmp_path: Path, add: Pair) -> None:
    add("a", masks="labels")
    assert read_dataset(tmp_path)[0].mask == tmp_path / "labels/a.png"


def test_every_pairing_problem_is_named_in_one_error(tmp_path: Path, add: Pair) -> None:
    add("good")
    add("lonely", mask=None)
    add("twice", image=".jpg")
    add("twice", image=".png")
    Image.new("L", (4, 4)).save(tmp_path / "masks/orphan.png")
    add("void")
    (tmp_path / "images/void.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="4 problems") as caught:
        read_dataset(tmp_path)
    message = str(caught.value)
    assert re.search(r"images/lonely\.jpg: no mask called lonely", message)
    assert re.search(r"masks/orphan\.png: no image called orphan", message)
    assert re.search(r"images/twice\.png: same name as twice\.jpg", message)
    assert re.search(r"images/void\.jpg: the file is empty", message)
    assert "good" not in message


def test_long_lists_of_problems_end_in_a_count(tmp_path: Path, add: Pair) -> None:
    add("good")
    for number in range(25):
        add(f"n{number:02}", mask=None)
    with pytest.raises(DataError, match=r"25 problems(?s:.*)n19(?s:.*)and 5 more$"):
        read_dataset(tmp_path)


def test_layout_is_explained_where_nothing_is_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder; expected images/ and masks/"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match="expected images/ and masks/"):
        read_dataset(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match="no images found"):
        read_dataset(tmp_path)


def test_a_plain_folder_of_images_does_without_masks(tmp_path: Path) -> None:
    (tmp_path / "day 1").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "day 1" / "frame.png")
    samples = read_dataset(tmp_path, masks=False)
    assert [(sample.name, sample.mask) for sample in samples] == [("day 1/frame", None)]


def test_groups_come_from_the_csv_by_path_by_file_name_or_by_stem(
    tmp_path: Path, add: Pair
) -> None:
    for name in ("a", "b", "s1/c", "s2/d"):
        add(name)
    table = tmp_path / "groups.csv"
    table.write_text("\ufeffgroup,name\nP1,a.jpg\nP1,b\nP2,s1\\c.jpg\nP3,d\n", encoding="utf-8")
    groups = {sample.name: sample.group for sample in read_dataset(tmp_path, groups=table)}
    assert groups == {"a": "P1", "b": "P1", "s1/c": "P2", "s2/d": "P3"}


def test_an_image_without_group_or_a_bad_csv_is_refused(tmp_path: Path, add: Pair) -> None:
    add("a")
    add("b")
    table = tmp_path / "groups.csv"
    table.write_text("name,group\na,P1\n")
    with pytest.raises(DataError, match=r"b\.jpg: no row in .*groups\.csv"):
        read_dataset(tmp_path, groups=table)
    table.write_text("a,P1\n")
    with pytest.raises(DataError, match="columns a, P1; expected name and group"):
        read_groups(table)
    table.write_text("name,group\na,P1\na.jpg,P2\n")
    with pytest.raises(DataError, match=r"line 3: a\.jpg is in P1 and in P2"):
        read_groups(table)
    table.write_text("name,group\na,\n")
    with pytest.raises(DataError, match="line 2: name or group is empty"):
        read_groups(table)
    with pytest.raises(DataError, match="no such groups file"):
        read_groups(tmp_path / "none.csv")


def test_a_data_list_is_read_relative_to_the_data_or_to_itself(tmp_path: Path, add: Pair) -> None:
    add("a")
    add("b")
    content = {
        "training": [
            {"image": "images/a.jpg", "label": "masks/a.png", "fold": 1, "group": "P1"},
            {"image": "./images/b.jpg", "label": "masks/b.png"},
        ],
        "test": ["images/b.jpg"],
    }
    (tmp_path / "list.json").write_text(json.dumps(content))
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path, tmp_path / "empty"):
        samples = read_dataset(folder, datalist=tmp_path / "list.json")
        assert [each.image.name for each in samples] == ["a.jpg", "b.jpg"]
        assert (samples[0].group, samples[0].fold) == ("P1", 1)
        assert samples[0].mask is not None
        assert samples[0].mask.samefile(tmp_path / "masks/a.png")
    tested = read_dataset(tmp_path, datalist=tmp_path / "list.json", section="testing", masks=False)
    assert [each.name for each in tested] == ["images/b"]


def test_names_for_outputs_never_lead_out_of_a_folder(tmp_path: Path, add: Pair) -> None:
    add("a")
    inner = tmp_path / "inner"
    inner.mkdir()
    entries = [
        {"image": "../images/a.jpg", "label": "../masks/a.png"},
        {"image": str(tmp_path / "images" / "a.jpg"), "label": "../masks/a.png"},
    ]
    for entry in entries:
        (inner / "list.json").write_text(json.dumps({"training": [entry]}))
        [sample] = read_dataset(inner, datalist=inner / "list.json")
        assert sample.image.is_file()
        assert not Path(sample.name).is_absolute()
        assert ".." not in Path(sample.name).parts
        assert sample.name.endswith("images/a")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not a readable JSON data list"),
        ("[]", "expected a JSON object"),
        ('{"validation": []}', "no list called 'training'; found validation"),
        ('{"training": [{"label": "a"}]}', "has no image"),
        ('{"training": [7]}', r"training\[0\] is 7"),
        ('{"training": [{"image": ["a", "b"]}]}', "expected image and label"),
        ('{"training": [{"image": "a.png", "fold": "x"}]}', "fold 'x', not a number"),
        ('{"training": []}', "no images found"),
        ('{"training": [{"image": "gone.png", "label": "gone.png"}]}', "no such file"),
    ],
)
def test_a_bad_data_list_says_what_is_wrong(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises(DataError, match=reason):
        read_dataset(tmp_path, datalist=path)


def test_a_data_list_entry_without_label_is_refused_where_masks_are_needed(
    tmp_path: Path, add: Pair
) -> None:
    add("a")
    (tmp_path / "list.json").write_text('{"training": [{"image": "images/a.jpg"}]}')
    with pytest.raises(DataError, match="gives no label"):
        read_dataset(tmp_path, datalist=tmp_path / "list.json")
    with pytest.raises(DataError, match="no such data list"):
        read_dataset(tmp_path, datalist=tmp_path / "none.json")


def test_every_file_that_cannot_be_used_is_named_in_one_error(
    tmp_path: Path, add: Pair, task: Task
) -> None:
    add("good")
    add("small", size=(12, 10))
    add("turned", size=(16, 12))
    add("classes", value=7)
    add("broken")
    (tmp_path / "images/broken.jpg").write_bytes(b"no image")
    seen: list[tuple[int, int]] = []
    with pytest.raises(DataError, match="4 problems") as caught:
        check_samples(
            read_dataset(tmp_path), task, progress=lambda done, total: seen.append((done, total))
        )
    message = str(caught.value)
    assert "broken.jpg: not a supported image" in message
    assert "classes.png: mask with the values 0, 7" in message
    assert "small.png: 12x10 pixels (rows x columns), its image 12x16" in message
    assert "turned.png: 16x12 pixels (rows x columns), its image 12x16 (rotated: check" in (message)
    assert seen == [(n, 5) for n in range(1, 6)]


def test_masks_that_all_are_empty_are_refused(tmp_path: Path, add: Pair, task: Task) -> None:
    add("a", value=0)
    add("b", value=0)
    with pytest.raises(DataError, match="all 2 masks are empty"):
        check_samples(read_dataset(tmp_path), task)
    add("c")
    check_samples(read_dataset(tmp_path), task)
    check_samples([replace(each, mask=None) for each in read_dataset(tmp_path)], task)


def test_real_data_sets_pass_the_checks(shared_data: Path, task: Task) -> None:
    samples = read_dataset(shared_data / "data" / "kvasir_seg")
    assert len(samples) == 900
    check_samples(samples[:20], task)


COMPOSED, APART = "Bef\u00fcnde/\u00e9t\u00e9", "Befu\u0308nde/e\u0301te\u0301"
"""One name, as Windows and Linux write it and as macOS does."""


@pytest.mark.parametrize(("image", "mask"), [(COMPOSED, APART), (APART, COMPOSED), (APART, APART)])
def test_a_name_is_one_name_however_its_accents_are_written(
    tmp_path: Path, add: Pair, image: str, mask: str
) -> None:
    add(image, mask=None)
    add(mask, image=None)
    (sample,) = read_dataset(tmp_path)
    assert sample.name == COMPOSED
    assert sample.mask is not None
    assert sample.mask.is_file()
    assert sample.image == tmp_path / f"images/{image}.jpg"
    (tmp_path / "groups.csv").write_text(f"name,group\n{mask}.jpg,P1\n", encoding="utf-8")
    (sample,) = read_dataset(tmp_path, groups=tmp_path / "groups.csv")
    assert sample.group == "P1"
    entry = {"image": f"images/{mask}.jpg", "label": f"masks/{image}.png"}
    (tmp_path / "list.json").write_text(json.dumps({"training": [entry]}))
    (sample,) = read_dataset(tmp_path, datalist=tmp_path / "list.json")
    assert sample.image.is_file()


def test_two_files_of_one_name_are_refused_however_it_is_written(tmp_path: Path, add: Pair) -> None:
    add(COMPOSED)
    add(APART, mask=None)
    with pytest.raises(DataError, match="same name as"):
        read_dataset(tmp_path)


def test_what_macos_lays_beside_files_is_no_sample(tmp_path: Path, add: Pair) -> None:
    add("a")
    for folder in ("images", "masks"):
        (tmp_path / folder / "__MACOSX").mkdir()
        for name in ("._a.jpg", "._a.png", "__MACOSX/._a.jpg", "__MACOSX/a.png", "Thumbs.db"):
            (tmp_path / folder / name).write_bytes(b"\0\5\x16\7")
    assert [sample.name for sample in read_dataset(tmp_path)] == ["a"]
