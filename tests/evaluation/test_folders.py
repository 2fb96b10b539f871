"""Folders paired by name and measured; nothing is left out in silence."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2unet_core.data import Sample
from sam2unet_core.errors import DataError
from sam2unet_core.evaluation import (
    Case,
    Options,
    evaluate_arrays,
    evaluate_folders,
    evaluate_samples,
)
from sam2unet_core.media.image import write_mask, write_probability
from sam2unet_core.task import Task

Folders = tuple[Path, Path]


def test_clinical_scores_of_four_images_by_hand(folders: Folders, task: Task) -> None:
    found = evaluate_folders(*folders, task=task)
    rows = {str(row["name"]): row for row in found.rows}
    assert [rows[n]["dice"] for n in sorted(rows)] == [0.5, 1.0, 0.0, 1.0]
    assert rows["p1/a"]["hd95_px"] == pytest.approx(5)
    of_class = found.summary["classes"]["polyp"]
    scores = of_class["scores"]
    assert scores["dice"]["mean"] == pytest.approx(0.625)
    assert scores["dice_with_lesion"]["mean"] == pytest.approx(0.75)
    assert of_class["with_lesion"] == {"images": 2, "missed_altogether": 0}
    assert of_class["without_lesion"] == {
        "images": 2,
        "empty_as_they_should": 1,
        "with_false_finding": 1,
    }
    # a has IoU 1/3, below 0.5: not detected. Lesions there 2, predicted 3, detected 1.
    assert scores["lesion_sensitivity"]["mean"] == pytest.approx(1 / 2)
    assert scores["lesion_precision"]["mean"] == pytest.approx(1 / 3)
    assert scores["false_lesions_per_image"]["mean"] == pytest.approx(2 / 4)
    lenient = evaluate_folders(*folders, task=task, options=Options(lesion_iou=0.3))
    detected = lenient.summary["classes"]["polyp"]["scores"]["lesion_sensitivity"]
    assert detected["mean"] == pytest.approx(1)


def test_groups_of_the_csv_carry_the_interval(folders: Folders, task: Task, tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("name,group\np1/a,P1\np1/b,P1\np2/c,P2\np2/d,P2\n")
    found = evaluate_folders(*folders, task=task, groups=table)
    dice = found.summary["classes"]["polyp"]["scores"]["dice"]
    # the means of the two groups are 0.75 and 0.5: the interval of two groups reaches from one
    # to the other
    assert (dice["low"], dice["high"]) == (pytest.approx(0.5), pytest.approx(0.75))
    assert found.summary["groups"] == 2
    table.write_text("name,group\na,P1\nb,P1\nc,P2\n")
    with pytest.raises(DataError, match=r"p2/d\.png: no row in"):
        evaluate_folders(*folders, task=task, groups=table)


def test_distances_are_in_mm_where_the_spacing_is_known(folders: Folders, task: Task) -> None:
    found = evaluate_folders(*folders, task=task, options=Options(spacing_mm=(9.0, 0.2)))
    assert found.rows[0]["hd95_mm"] == pytest.approx(1.0)  # 5 columns of 0.2 mm
    assert found.summary["distance_unit"] == "mm"


def test_a_missing_prediction_is_an_error_that_names_it(folders: Folders, task: Task) -> None:
    pred, gt = folders
    (pred / "p1/a.jpg.mask.png").unlink()
    (pred / "p2/d.jpg.mask.png").unlink()
    with pytest.raises(DataError, match=r"2 problems(?s:.*)no prediction for p1/a(?s:.*)p2/d"):
        evaluate_folders(pred, gt, task=task)


def test_predictions_without_mask_are_counted_in_a_note(folders: Folders, task: Task) -> None:
    pred, gt = folders
    (gt / "masks/p1/a.png").unlink()
    found = evaluate_folders(pred, gt, task=task)
    assert found.summary["images"] == 3
    assert found.notes == ("1 predictions have no mask and were not measured: p1/a",)


def test_predictions_of_another_size_are_all_named(folders: Folders, task: Task) -> None:
    pred, gt = folders
    for name in ("p1/a", "p2/c"):
        small = np.zeros((12, 15), np.uint8)
        write_mask(pred / f"{name}.jpg.mask.png", small, task.classes)
    with pytest.raises(DataError, match=r"p1/a(?s:.*)12x15, the mask (?s:.*)24x30(?s:.*)p2/c"):
        evaluate_folders(pred, gt, task=task)


def test_masks_may_be_given_as_their_own_folder_and_predictions_below_images(
    folders: Folders, task: Task, tmp_path: Path
) -> None:
    pred, gt = folders
    expected = evaluate_folders(pred, gt, task=task).rows
    assert repr(evaluate_folders(pred, gt / "masks", task=task).rows) == repr(expected)
    (tmp_path / "whole").mkdir()
    shutil.move(pred, tmp_path / "whole" / "images")
    found = evaluate_folders(tmp_path / "whole", gt, task=task)
    assert repr(found.rows) == repr(expected)


def test_plain_files_are_taken_as_masks_or_as_probabilities(
    folders: Folders, task: Task, tmp_path: Path
) -> None:
    pred, gt = folders
    expected = [row["dice"] for row in evaluate_folders(pred, gt, task=task).rows]
    for kind, scale in (("mask", 255), ("soft", 1)):
        for mask in pred.rglob("*.mask.png"):
            labels = np.array(Image.open(mask)) > 0
            name = mask.relative_to(pred).as_posix().removesuffix(".jpg.mask.png")
            path = tmp_path / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "mask":
                Image.fromarray((labels * scale).astype(np.uint8)).save(path)
            else:  # nothing at 128 or above where nothing was found
                soft = np.where(labels, 0.7, np.linspace(0, 0.4, labels.shape[1]))
                write_probability(path, soft.astype(np.float32))
        found = evaluate_folders(tmp_path / kind, gt, task=task)
        assert [row["dice"] for row in found.rows] == expected


def test_a_threshold_turns_to_the_probability_maps(folders: Folders, task: Task) -> None:
    pred, gt = folders
    masks = evaluate_folders(pred, gt, task=task)
    assert masks.rows[3]["in_prediction"] == 0
    at_half = evaluate_folders(pred, gt, task=task, options=Options(threshold=0.5))
    assert at_half.rows[3]["in_prediction"] == 1  # the corner at 0.6
    higher = evaluate_folders(pred, gt, task=task, options=Options(threshold=0.7))
    assert [r["dice"] for r in higher.rows] == [r["dice"] for r in masks.rows]
    for path in pred.rglob("*.prob1.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"threshold 0\.5 has nothing to act on"):
        evaluate_folders(pred, gt, task=task, options=Options(threshold=0.5))
    with pytest.raises(DataError, match="between 0 and 1"):
        evaluate_folders(pred, gt, task=task, options=Options(threshold=1.5))


def test_several_classes_are_scored_apart_from_masks_and_from_maps(
    task: Task, tmp_path: Path
) -> None:
    two = replace(task, classes=(*task.classes, replace(task.classes[0], value=2, name="vessel")))
    truth = np.zeros((10, 10), np.uint8)
    truth[:5], truth[5:] = 1, 2
    prediction = truth.copy()
    prediction[4] = 2
    for folder in ("gt", "pred"):
        (tmp_path / folder).mkdir()
    write_mask(tmp_path / "gt/a.png", truth, two.classes)
    for value in (1, 2):
        soft = np.where(prediction == value, 0.8, 0.1).astype(np.float32)
        write_probability(tmp_path / f"pred/a.png.prob{value}.png", soft)
    from_maps = evaluate_folders(tmp_path / "pred", tmp_path / "gt", task=two)
    write_mask(tmp_path / "pred/a.png.mask.png", prediction, two.classes)
    from_masks = evaluate_folders(tmp_path / "pred", tmp_path / "gt", task=two)
    for found in (from_maps, from_masks):
        assert {row["class"]: row["dice"] for row in found.rows} == {
            "polyp": pytest.approx(80 / 90),
            "vessel": pytest.approx(100 / 110),
        }
    with pytest.raises(DataError, match=r"one class, polyp has 2; use the clinical"):
        evaluate_folders(tmp_path / "pred", tmp_path / "gt", task=two, protocol="paper")
    (tmp_path / "pred/a.png.prob2.png").unlink()
    (tmp_path / "pred/a.png.mask.png").unlink()
    with pytest.raises(DataError, match=r"maps of the classes \[1\], expected \[1, 2\]"):
        evaluate_folders(tmp_path / "pred", tmp_path / "gt", task=two)


def test_the_paper_protocol_measures_maps_and_refuses_masks(folders: Folders, task: Task) -> None:
    pred, gt = folders
    found = evaluate_folders(pred, gt, task=task, protocol="paper")
    assert found.summary["images"] == 4
    assert "2 of 4 masks are empty" in found.notes[0]
    # p1/b: background 0.2 -> 0, corner 0.6 -> 145, square 0.9 -> 255; 100 of 720 pixels.
    # threshold 0: Dice 200/820; 1 to 145: 200/201; 146 to 255: 1.
    row = next(row for row in found.rows if row["name"] == "p1/b")
    expected = (200 / 820 + 145 * 200 / 201 + 110) / 256
    assert row["mDice"] == pytest.approx(expected, abs=1e-6)
    for path in pred.rglob("*.prob1.png"):
        path.unlink()
    with pytest.raises(DataError, match="every prediction is a mask"):
        evaluate_folders(pred, gt, task=task, protocol="paper")
    for path in pred.rglob("*.mask.png"):
        path.rename(str(path).replace(".jpg.mask", ""))
    with pytest.raises(DataError, match=r"every prediction is a mask \(at most two values"):
        evaluate_folders(pred, gt, task=task, protocol="paper")


def test_jpeg_masks_are_masks_for_all_their_greys(task: Task, tmp_path: Path) -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[7:25, 9:30] = 255
    for folder in ("gt", "pred"):
        (tmp_path / folder).mkdir()
        Image.fromarray(labels).save(tmp_path / folder / "a.jpg", quality=70)
    found = evaluate_folders(tmp_path / "pred", tmp_path / "gt", task=task)
    assert found.rows[0]["dice"] == 1.0
    with pytest.raises(DataError, match="every prediction is a mask"):
        evaluate_folders(tmp_path / "pred", tmp_path / "gt", task=task, protocol="paper")


def test_the_paper_protocol_takes_greys_above_128_as_foreground(task: Task, tmp_path: Path) -> None:
    grey = np.full((16, 16), 128, np.uint8)
    grey[4:8, 4:8] = 255
    for folder in ("gt", "pred"):
        (tmp_path / folder).mkdir()
    Image.fromarray(grey).save(tmp_path / "gt/a.png")
    soft = np.where(grey == 255, 1.0, 0.0).astype(np.float32)
    soft[0, 0] = 0.5
    write_probability(tmp_path / "pred/a.png", soft)
    found = evaluate_folders(tmp_path / "pred", tmp_path / "gt", task=task, protocol="paper")
    assert found.summary["results"]["IoU"] == pytest.approx(1)


def test_tables_are_written_with_nothing_where_nothing_is_defined(
    folders: Folders, task: Task, tmp_path: Path
) -> None:
    found = evaluate_folders(*folders, task=task)
    csv_file, json_file = found.write(tmp_path / "out" / "deep")
    with csv_file.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["p1/a", "p1/b", "p2/c", "p2/d"]
    assert rows[3]["hd95_px"] == rows[3]["recall"] == ""
    assert float(rows[0]["dice"]) == 0.5
    summary = json.loads(json_file.read_text(encoding="utf-8"))
    assert summary["classes"]["polyp"]["scores"]["dice"]["mean"] == pytest.approx(0.625)
    assert summary["classes"]["polyp"]["scores"]["lesion_sensitivity"]["median"] is None
    again = evaluate_folders(*folders, task=task)
    assert repr(again) == repr(found)
    assert again.table().row_count > 10


def test_samples_are_measured_against_their_own_masks_and_groups(
    folders: Folders, task: Task
) -> None:
    pred, gt = folders
    samples = [
        Sample(Path("unused.jpg"), gt / "masks/p1/a.png", "P1", "p1/a"),
        Sample(Path("unused.jpg"), gt / "masks/p2/c.png", "P2", "p2/c"),
    ]
    found = evaluate_samples(pred, samples, task=task)
    assert [(row["group"], row["dice"]) for row in found.rows] == [("P1", 0.5), ("P2", 0.0)]
    with pytest.raises(DataError, match=r"unused\.jpg: no mask"):
        evaluate_samples(pred, [replace(samples[0], mask=None)], task=task)


def test_arrays_are_measured_as_they_come(task: Task) -> None:
    truth = np.zeros((6, 6), np.uint8)
    truth[:3] = 1

    def cases() -> Iterator[Case]:
        yield Case("a", "g", truth, truth)
        yield Case("b", "g", 1 - truth, truth)

    found = evaluate_arrays(cases(), task=task)
    assert [row["dice"] for row in found.rows] == [1.0, 0.0]
    with pytest.raises(DataError, match=r"b: the prediction is \(2, 2\), the mask \(6, 6\)"):
        evaluate_arrays([Case("b", "g", truth[:2, :2], truth)], task=task)
    with pytest.raises(DataError, match="no image to measure"):
        evaluate_arrays([], task=task)


def test_folders_that_hold_nothing_are_errors(folders: Folders, task: Task, tmp_path: Path) -> None:
    pred, gt = folders
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="no such folder of predictions"):
        evaluate_folders(tmp_path / "gone", gt, task=task)
    with pytest.raises(DataError, match="no such folder of masks"):
        evaluate_folders(pred, tmp_path / "gone", task=task)
    with pytest.raises(DataError, match="no predictions found"):
        evaluate_folders(tmp_path / "void", gt, task=task)
    with pytest.raises(DataError, match="no masks found"):
        evaluate_folders(pred, tmp_path / "void", task=task)
    with pytest.raises(DataError, match="choose from clinical, paper"):
        evaluate_folders(pred, gt, task=task, protocol="strict")  # type: ignore[arg-type]


def test_a_prediction_is_found_however_the_accents_of_its_name_are_written(
    tmp_path: Path, task: Task
) -> None:
    composed, apart = "\u00e9t\u00e9", "e\u0301te\u0301"
    labels = np.zeros((8, 8), np.uint8)
    labels[2:5, 2:5] = 1
    for one, other in ((composed, apart), (apart, composed)):
        gt, pred = tmp_path / one / "gt", tmp_path / one / "pred"
        for folder, name in ((gt, f"{one}.png"), (pred, f"{other}.jpg.mask.png")):
            folder.mkdir(parents=True)
            write_mask(folder / name, labels, task.classes)
        found = evaluate_folders(pred, gt, task=task)
        assert [(row["name"], row["dice"]) for row in found.rows] == [(composed, 1.0)]
