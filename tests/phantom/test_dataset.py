"""The data set that `sam2unet phantom` writes."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sam2unet_core.cli import app
from sam2unet_core.errors import DataError
from sam2unet_core.phantom import write_dataset


def test_dataset_pairs_each_image_with_a_mask_of_its_name_and_size(tmp_path: Path) -> None:
    written = write_dataset(tmp_path / "data", frames=6, seed=3, size=(48, 64))
    assert [frame.image.name for frame in written] == [f"{n:04d}.png" for n in range(6)]
    for frame in written:
        assert frame.image.parent.name == "images"
        assert frame.mask == frame.image.parents[1] / "masks" / frame.image.name
        with Image.open(frame.image) as image, Image.open(frame.mask) as mask:
            assert (image.mode, mask.mode) == ("RGB", "L")
            assert image.size == mask.size == (64, 48)
            values = set(np.unique(np.asarray(mask)))
        assert values <= {0, 255}
        assert (255 in values) == frame.has_polyp


def test_four_frames_share_a_group_and_the_groups_are_in_a_table(tmp_path: Path) -> None:
    write_dataset(tmp_path, frames=6, size=(32, 32))
    with (tmp_path / "groups.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == [f"{n:04d}" for n in range(6)]
    assert [row["group"] for row in rows] == ["patient000"] * 4 + ["patient001"] * 2


def test_longer_dataset_begins_with_the_shorter_one_of_its_seed(tmp_path: Path) -> None:
    write_dataset(tmp_path / "short", frames=3, seed=7, size=(32, 32))
    write_dataset(tmp_path / "long", frames=5, seed=7, size=(32, 32))
    for kind in ("images", "masks"):
        for path in sorted((tmp_path / "short" / kind).iterdir()):
            assert _pixels(path) == _pixels(tmp_path / "long" / kind / path.name)


def test_another_seed_gives_other_frames(tmp_path: Path) -> None:
    first = write_dataset(tmp_path / "a", frames=1, seed=0, size=(32, 32))
    second = write_dataset(tmp_path / "b", frames=1, seed=1, size=(32, 32))
    assert _pixels(first[0].image) != _pixels(second[0].image)


def test_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(DataError, match="not an empty folder"):
        write_dataset(tmp_path, frames=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"frames": 0}, "frames is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"size": (31, 64)}, "31 x 64 pixels: the minimum is 32 x 32"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_written(
    tmp_path: Path, numbers: dict[str, int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_dataset(tmp_path / "data", **numbers)  # type: ignore[arg-type]
    assert not (tmp_path / "data").exists()


def test_command_writes_the_dataset_and_says_where(tmp_path: Path) -> None:
    out = tmp_path / "data"
    line = ["phantom", str(out), "--frames", "5", "--seed", "2", "--size", "40", "56"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("5 frames, ")
    assert str(out) in result.stdout
    with Image.open(out / "images" / "0004.png") as image:
        assert image.size == (56, 40)


def _pixels(path: Path) -> str:
    with Image.open(path) as image:
        return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()
