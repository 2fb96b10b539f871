"""Splits: groups whole, the same everywhere, never an empty side."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sam2unet_core.data import Sample, load_split, split_samples
from sam2unet_core.errors import DataError

Pair = Callable[..., None]


def _samples(sizes: dict[str, int]) -> list[Sample]:
    return [
        Sample(Path(f"{group}-{n}.png"), None, group, f"{group}-{n}")
        for group, size in sizes.items()
        for n in range(size)
    ]


PATIENTS = {f"P{n:02}": 1 + n % 7 for n in range(30)}  # 30 groups of 1 to 7 images, 117 in all


def test_no_group_is_cut_and_nothing_is_lost() -> None:
    samples = _samples(PATIENTS)
    training, validation = split_samples(samples, val_fraction=0.2, seed=3)
    assert {each.group for each in training}.isdisjoint(each.group for each in validation)
    assert sorted(s.name for s in [*training, *validation]) == sorted(s.name for s in samples)
    assert abs(len(validation) - 0.2 * len(samples)) <= 3.5  # half of the largest group


def test_a_fraction_without_groups_is_met_to_the_image() -> None:
    samples = _samples({f"f{n}": 1 for n in range(900)})
    training, validation = split_samples(samples, val_fraction=0.1)
    assert (len(training), len(validation)) == (810, 90)


def test_a_split_depends_on_the_seed_and_not_on_the_order_on_disk() -> None:
    samples = _samples(PATIENTS)
    shuffled = random.Random(9).sample(samples, len(samples))
    assert split_samples(samples, seed=1) == split_samples(shuffled, seed=1)
    assert split_samples(samples, seed=1) != split_samples(samples, seed=2)


def test_folds_partition_the_samples_evenly_without_cutting_groups() -> None:
    samples = _samples(PATIENTS)
    parts = [split_samples(samples, folds=5, fold=fold) for fold in range(5)]
    held_back = Counter(each.name for _, validation in parts for each in validation)
    assert held_back == Counter(each.name for each in samples)
    for training, validation in parts:
        assert len(training) + len(validation) == len(samples)
        assert {each.group for each in training}.isdisjoint(each.group for each in validation)
        assert abs(len(validation) - len(samples) / 5) <= 2


def test_splits_that_cannot_be_are_refused() -> None:
    samples = _samples({"a": 5, "b": 2})
    with pytest.raises(DataError, match="no validation data: val_fraction is 0"):
        split_samples(samples, val_fraction=0)
    with pytest.raises(DataError, match="no validation data: 5 images in 1 group"):
        split_samples(_samples({"a": 5}))
    with pytest.raises(DataError, match="3 folds of 2 groups"):
        split_samples(samples, folds=3)
    with pytest.raises(DataError, match="fold 2 of 2"):
        split_samples(samples, folds=2, fold=2)
    with pytest.raises(DataError, match="fold 0 of 1"):
        split_samples(samples, folds=1)


def test_both_sides_hold_something_however_uneven_the_groups() -> None:
    for fraction in (0.01, 0.5, 0.99):
        training, validation = split_samples(_samples({"a": 90, "b": 2}), val_fraction=fraction)
        assert training
        assert validation


@pytest.fixture
def listed(tmp_path: Path, add: Pair) -> Callable[..., Path]:
    """Write a data list over four images; `sections` maps a section to (name, extra) pairs."""
    for name in "abcd":
        add(name)

    def write(**sections: list[tuple[str, dict[str, object]]]) -> Path:
        content = {
            section: [
                {"image": f"images/{name}.jpg", "label": f"masks/{name}.png", **extra}
                for name, extra in entries
            ]
            for section, entries in sections.items()
        }
        (tmp_path / "list.json").write_text(json.dumps(content))
        return tmp_path / "list.json"

    return write


def test_the_validation_section_of_a_data_list_is_used(
    tmp_path: Path, listed: Callable[..., Path]
) -> None:
    path = listed(training=[("a", {}), ("b", {})], validation=[("c", {})])
    split = load_split(tmp_path, datalist=path)
    assert [each.image.name for each in split.training] == ["a.jpg", "b.jpg"]
    assert [each.image.name for each in split.validation] == ["c.jpg"]


def test_the_fold_numbers_of_a_data_list_are_used(
    tmp_path: Path, listed: Callable[..., Path]
) -> None:
    path = listed(training=[(name, {"fold": n % 2}) for n, name in enumerate("abcd")])
    split = load_split(tmp_path, datalist=path, fold=1)
    assert [each.image.name for each in split.validation] == ["b.jpg", "d.jpg"]
    with pytest.raises(DataError, match="fold 2 of 2: the data list has the folds 0, 1"):
        load_split(tmp_path, datalist=path, fold=2)
    with pytest.raises(DataError, match="fold 0 of 5"):
        load_split(tmp_path, datalist=path, folds=5)
    path = listed(training=[("a", {"fold": 0}), ("b", {})])
    with pytest.raises(DataError, match="have no fold number"):
        load_split(tmp_path, datalist=path)


def test_a_data_list_that_mixes_the_sides_is_refused(
    tmp_path: Path, listed: Callable[..., Path]
) -> None:
    path = listed(training=[("a", {}), ("b", {})], validation=[("a", {})])
    with pytest.raises(DataError, match=r"a\.jpg: 1 images are in training and in validation"):
        load_split(tmp_path, datalist=path)
    path = listed(training=[("a", {"group": "P1"})], validation=[("b", {"group": "P1"})])
    with pytest.raises(DataError, match="cuts 1 groups, such as 'P1'"):
        load_split(tmp_path, datalist=path)


def test_a_validation_folder_is_used_whole_and_kept_apart(
    tmp_path: Path, listed: Callable[..., Path]
) -> None:
    with pytest.raises(DataError, match="4 images are in training and in validation"):
        load_split(tmp_path, val_dataset_dir=tmp_path)


def test_a_folder_is_split_by_the_groups_of_the_csv(
    tmp_path: Path, listed: Callable[..., Path]
) -> None:
    groups = tmp_path / "groups.csv"
    groups.write_text("name,group\na,1\nb,1\nc,2\nd,2\n")
    for seed in range(4):
        split = load_split(tmp_path, groups=groups, val_fraction=0.25, seed=seed)
        sides = {frozenset(s.name for s in side) for side in (split.training, split.validation)}
        assert sides == {frozenset("ab"), frozenset("cd")}
