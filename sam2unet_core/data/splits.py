"""Training and validation splits that never share a group."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sam2unet_core.data.lists import datalist_sections
from sam2unet_core.data.samples import Sample, read_dataset
from sam2unet_core.errors import DataError


@dataclass(frozen=True)
class Split:
    """Training and validation samples, each sorted by name."""

    training: list[Sample]
    validation: list[Sample]


def load_split(
    dataset_dir: Path | str,
    *,
    datalist: Path | str | None = None,
    groups: Path | str | None = None,
    val_dataset_dir: Path | str | None = None,
    val_fraction: float = 0.1,
    folds: int = 0,
    fold: int = 0,
    seed: int = 0,
) -> Split:
    """Read a data set and split it by the first of these that applies.

    A separate validation data set; the data list's `validation` section; the data list's fold
    numbers, where entries with number `fold` validate; else `split_samples`.

    Args:
        dataset_dir: see `read_dataset`.
        datalist: MONAI data list.
        groups: CSV with the columns `name` and `group`; covers `val_dataset_dir` too.
        val_dataset_dir: data set for validation, with the layout of `dataset_dir`.
        val_fraction: see `split_samples`.
        folds: see `split_samples`; must be 0 or the number of folds in the data list.
        fold: the fold to validate on.
        seed: see `split_samples`.

    Raises:
        DataError: from `read_dataset`; an empty side; a group or an image on both sides.
    """
    training = read_dataset(dataset_dir, datalist=datalist, groups=groups)
    if val_dataset_dir is not None:
        validation = read_dataset(val_dataset_dir, groups=groups)
        return _apart(training, validation, by_group=groups is not None)
    if datalist is not None and "validation" in datalist_sections(datalist):
        validation = read_dataset(
            dataset_dir, datalist=datalist, section="validation", groups=groups
        )
        return _apart(training, validation)
    if any(sample.fold is not None for sample in training):
        return _apart(*_by_fold_number(training, folds=folds, fold=fold))
    return _apart(
        *split_samples(training, val_fraction=val_fraction, folds=folds, fold=fold, seed=seed)
    )


def split_samples(
    samples: Sequence[Sample],
    *,
    val_fraction: float = 0.1,
    folds: int = 0,
    fold: int = 0,
    seed: int = 0,
) -> tuple[list[Sample], list[Sample]]:
    """Split by whole groups; the same names and seed give the same split on any machine.

    Args:
        samples: in any order.
        val_fraction: share of the samples to validate on, approximated by whole groups.
        folds: 2 or more for k-fold cross-validation with folds of about equal size; 0 for one
            split by `val_fraction`.
        fold: the fold to validate on, from 0.
        seed: of the shuffle.

    Returns:
        training and validation samples, sorted by name.

    Raises:
        DataError: an empty side, or `folds` or `fold` out of range.
    """
    members: dict[str, list[Sample]] = {}
    ordered = sorted(samples, key=lambda each: each.name)
    for sample in ordered:
        members.setdefault(sample.group, []).append(sample)
    names = list(members)
    random.Random(seed).shuffle(names)
    sizes = {name: len(members[name]) for name in names}
    if folds:
        held_out = _fold_groups(names, sizes, folds=folds, fold=fold)
    else:
        held_out = _fraction_groups(names, sizes, val_fraction=val_fraction)
    training = [sample for sample in ordered if sample.group not in held_out]
    validation = [sample for sample in ordered if sample.group in held_out]
    return training, validation


def _fold_groups(names: list[str], sizes: dict[str, int], *, folds: int, fold: int) -> set[str]:
    if folds < 2 or not 0 <= fold < folds:
        raise DataError(f"fold {fold} of {folds}: expected 2 or more folds and a fold from 0")
    if len(names) < folds:
        raise DataError(f"{folds} folds of {len(names)} groups: use {len(names)} folds or fewer")
    contents: list[set[str]] = [set() for _ in range(folds)]
    totals = [0] * folds
    for name in sorted(names, key=lambda each: -sizes[each]):  # stable: shuffled within a size
        smallest = totals.index(min(totals))
        contents[smallest].add(name)
        totals[smallest] += sizes[name]
    return contents[fold]


def _fraction_groups(names: list[str], sizes: dict[str, int], *, val_fraction: float) -> set[str]:
    if not 0 < val_fraction < 1:
        raise DataError(
            f"no validation data: val_fraction is {val_fraction:g}, expected between 0 and 1 "
            "(or name a validation data set)"
        )
    if len(names) < 2:
        raise DataError(
            f"no validation data: {sum(sizes.values())} images in {len(names)} group, which cannot "
            "be split; provide at least two groups, or name a validation data set"
        )
    wanted = val_fraction * sum(sizes.values())
    chosen: set[str] = set()
    total = 0
    for name in names:
        nearer = abs(total + sizes[name] - wanted) < abs(total - wanted)
        if nearer and len(chosen) < len(names) - 1:
            chosen.add(name)
            total += sizes[name]
    return chosen or {min(names, key=lambda each: sizes[each])}


def _by_fold_number(
    samples: list[Sample], *, folds: int, fold: int
) -> tuple[list[Sample], list[Sample]]:
    without = [sample for sample in samples if sample.fold is None]
    if without:
        raise DataError(f"{without[0].image} and {len(without) - 1} more have no fold number")
    present = sorted({sample.fold for sample in samples if sample.fold is not None})
    if fold not in present or folds not in (0, len(present)):
        raise DataError(
            f"fold {fold} of {folds or len(present)}: the data list has the folds "
            f"{', '.join(map(str, present))}"
        )
    return (
        [sample for sample in samples if sample.fold != fold],
        [sample for sample in samples if sample.fold == fold],
    )


def _apart(training: list[Sample], validation: list[Sample], *, by_group: bool = True) -> Split:
    if not training or not validation:
        side = "training" if not training else "validation"
        raise DataError(f"no {side} data: that side of the split is empty")
    shared = sorted(_files(training) & _files(validation))
    if shared:
        raise DataError(
            f"{shared[0]}: {len(shared)} images are in training and in validation; keep them apart"
        )
    cut = sorted({each.group for each in training} & {each.group for each in validation})
    if by_group and cut:
        raise DataError(
            f"the split cuts {len(cut)} groups, such as {cut[0]!r}: keep each group on one side"
        )
    return Split(training, validation)


def _files(samples: Iterable[Sample]) -> set[str]:
    return {str(sample.image.resolve()) for sample in samples}
