"""Masks from arrays and from files: the same pixels, the same masks, the same rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sam2unet_core.segmenter import Segmenter
from sam2unet_core.task import Task


@pytest.fixture
def found(worker: Any, pictures: NDArray[np.uint8]) -> dict[str, Any]:
    """The result of segmenting the pictures, with probabilities and a threshold amid them."""
    first = worker.segment(pictures, probabilities=True)
    middle = float(np.median(worker.array(first["probabilities"]).astype(float)))
    return worker.segment(pictures, probabilities=True, threshold=middle)


def test_masks_are_those_of_the_segmenter(
    worker: Any, weights: Path, small_task: Task, pictures: NDArray[np.uint8], found: dict[str, Any]
) -> None:
    expected = Segmenter.open(weights=weights, device="cpu").probabilities(pictures)
    masks = worker.array(found["masks"])
    assert masks.shape == (3, 1, 48, 80)
    assert masks.dtype == np.uint8
    assert 0.2 < masks.mean() < 0.8
    sure = np.abs(expected - found["threshold"]) > 1e-5  # another batch size, other last digits
    np.testing.assert_array_equal(masks[sure], (expected >= found["threshold"])[sure])
    probabilities = worker.array(found["probabilities"])
    assert probabilities.dtype == np.float16
    np.testing.assert_allclose(probabilities, expected, atol=1e-3)
    assert found["frames"] == found["frames_with_findings"] == 3
    assert found["task"] == "small"


def test_frames_come_one_by_one_before_the_end(worker: Any, pictures: NDArray[np.uint8]) -> None:
    given = {"array": worker.give(pictures), "channels": "rgb"}
    event, before = worker.until_end_of(worker.send("segment", input=given))
    kinds = [each["event"] for each in before]
    assert kinds == ["partial", "progress"] * 3
    assert [each["frame"] for each in before[::2]] == [0, 1, 2]
    assert [(each["done"], each["total"]) for each in before[1::2]] == [(1, 3), (2, 3), (3, 3)]
    masks = worker.array(event["result"]["masks"])
    for each in before[::2]:
        np.testing.assert_array_equal(worker.array(each["file"]), masks[each["frame"]])


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0.4},
        {"threshold": 0.0},
        {"threshold": 1.0},
        {"min_area_px": 40},
        {"keep_largest": True},
        {"smoothing_px": 2.5},
        {"min_area_px": 30, "keep_largest": True, "smoothing_px": 1.0},
    ],
)
def test_another_threshold_gives_what_segmenting_with_it_gives(
    worker: Any, pictures: NDArray[np.uint8], found: dict[str, Any], change: dict[str, Any]
) -> None:
    change = {"threshold": found["threshold"], **change}
    again = worker.result("rethreshold", result=found["result"], **change)
    masks = worker.array(again["masks"])
    anew = worker.segment(pictures, **change)
    np.testing.assert_array_equal(masks, worker.array(anew["masks"]))
    assert again["frames_with_findings"] == anew["frames_with_findings"]


def test_single_frames_can_be_thresholded_again(worker: Any, found: dict[str, Any]) -> None:
    fields = {"result": found["result"], "threshold": found["threshold"]}
    every = worker.array(worker.result("rethreshold", **fields)["masks"])
    some = worker.result("rethreshold", **fields, frames=[0, 2])
    np.testing.assert_array_equal(worker.array(some["masks"]), every[[0, 2]])
    assert worker.ask("rethreshold", **fields, frames=[3])["kind"] == "bad_request"


def test_the_rules_of_masks_are_these(
    worker: Any, pictures: NDArray[np.uint8], found: dict[str, Any]
) -> None:
    threshold = found["threshold"]
    plain = worker.array(found["masks"])
    fields = {"result": found["result"], "threshold": threshold}

    largest = worker.array(worker.result("rethreshold", **fields, keep_largest=True)["masks"])
    for before, after in zip(plain[:, 0], largest[:, 0], strict=True):
        parts, count = ndimage.label(before, np.ones((3, 3)))
        assert count > 1
        areas = ndimage.sum_labels(before, parts, range(1, count + 1))
        np.testing.assert_array_equal(after, parts == 1 + int(np.argmax(areas)))

    without = worker.array(worker.result("rethreshold", **fields, min_area_px=40)["masks"])
    for before, after in zip(plain[:, 0], without[:, 0], strict=True):
        parts, count = ndimage.label(before, np.ones((3, 3)))
        kept = [k for k in range(1, count + 1) if (parts == k).sum() >= 40]
        np.testing.assert_array_equal(after, np.isin(parts, kept))

    smooth = worker.array(worker.result("rethreshold", **fields, smoothing_px=2.0)["masks"])
    assert smooth.sum() > 0
    edges = [int(np.abs(np.diff(m[:, 0].astype(int), axis=1)).sum()) for m in (plain, smooth)]
    assert edges[1] < edges[0]


def test_only_the_last_two_results_are_kept(worker: Any, pictures: NDArray[np.uint8]) -> None:
    handles = [worker.segment(pictures[:1])["result"] for _ in range(3)]
    asked = [worker.ask("rethreshold", result=handle, threshold=0.5) for handle in handles]
    assert [each["event"] for each in asked] == ["failed", "finished", "finished"]
    assert asked[0]["kind"] == "no_such_result"


def test_files_of_requests_before_the_last_are_gone(
    worker: Any, pictures: NDArray[np.uint8]
) -> None:
    counts = []
    for _ in range(6):
        worker.segment(pictures)
        counts.append(len(worker.files()))
    assert counts[-1] == counts[-2] == counts[-3]


def test_a_picture_by_path_has_the_masks_of_its_array(
    worker: Any, root: Path, pictures: NDArray[np.uint8], found: dict[str, Any]
) -> None:
    folder = root / "pictures"
    folder.mkdir(exist_ok=True)
    masks = worker.array(found["masks"])
    for index, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    series = worker.result("inspect", path=str(folder))["series"]
    assert [(each["index"], each["rows"], each["columns"]) for each in series] == [
        (0, 48, 80),
        (1, 48, 80),
        (2, 48, 80),
    ]
    for index in (2, 0):
        given = {"path": str(folder), "series": index}
        result = worker.result("segment", input=given, threshold=found["threshold"])
        np.testing.assert_array_equal(worker.array(result["masks"])[0], masks[index])


@pytest.fixture
def volume(root: Path) -> tuple[Path, NDArray[np.int16]]:
    """A volume file and its values `(slice, row, column)`, of other ranges from slice to slice."""
    ramp = np.random.default_rng(8).integers(-900, 1400, (5, 8, 10)).astype(np.int16)
    values = np.repeat(np.repeat(ramp, 5, axis=1), 6, axis=2)
    values[0] //= 10
    path = root / "volume.nrrd"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(path))
    return path, values


def test_a_volume_by_path_has_the_masks_of_its_array(
    worker: Any, volume: tuple[Path, NDArray[np.int16]]
) -> None:
    path, values = volume
    first = worker.segment(values, probabilities=True)
    probabilities = worker.array(first["probabilities"]).astype(float)
    middle = float(np.median(probabilities))
    by_array = worker.array(worker.segment(values, threshold=middle)["masks"])
    assert 0.1 < by_array.mean() < 0.9
    by_path = worker.result("segment", input={"path": str(path)}, threshold=middle)
    np.testing.assert_array_equal(worker.array(by_path["masks"]), by_array)

    some = {"path": str(path), "frames": [1, 4]}
    result = worker.result("segment", input=some, threshold=middle)
    np.testing.assert_array_equal(worker.array(result["masks"]), by_array[[1, 4]])
    beyond = worker.ask("segment", input={"path": str(path), "frames": [5]})
    assert beyond["kind"] == "bad_request"


def test_a_volume_is_cut_in_the_plane_asked_for(
    worker: Any, volume: tuple[Path, NDArray[np.int16]]
) -> None:
    path, values = volume  # axes along the patient's: slices to the head, rows to the back
    coronal = values.transpose(1, 0, 2)[:, ::-1]  # a frame a row; head up
    by_array = worker.segment(coronal, threshold=0.5, probabilities=True)
    given = {"path": str(path)}
    cut = worker.result("segment", input=given, plane="coronal", threshold=0.5, probabilities=True)
    assert cut["masks"]["shape"] == [40, 1, 5, 60]
    np.testing.assert_array_equal(
        worker.array(cut["probabilities"]), worker.array(by_array["probabilities"])
    )


@pytest.mark.parametrize("dtype", ["|u1", "|i1", "<u2", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8"])
def test_grey_values_of_every_type_are_windowed_alike(worker: Any, dtype: str) -> None:
    values = np.random.default_rng(2).integers(0, 100, (2, 40, 40)).astype(dtype)
    window = {"center": 50.0, "width": 80.0}
    # the linear function of DICOM PS3.3 C.11.2.1.2.1, by hand
    share = (values.astype(float) - 49.5) / 79 + 0.5
    shown = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
    given = {"array": worker.give(values), "channels": "grey", "window": window}
    result = worker.result("segment", input=given, probabilities=True)
    expected = worker.segment(np.repeat(shown[..., None], 3, axis=3), probabilities=True)
    np.testing.assert_array_equal(
        worker.array(result["probabilities"]), worker.array(expected["probabilities"])
    )


def test_without_a_window_the_whole_array_has_one_scale(worker: Any) -> None:
    values = np.random.default_rng(2).normal(0, 3, (2, 40, 40)).astype("<f4")
    values[0] *= 0.1
    values[1, 3, 3], values[1, 5, 5] = np.nan, np.inf
    low, high = np.nanmin(values), np.nanmax(values[np.isfinite(values)])
    share = np.clip((values.astype(float) - low) / (high - low), 0, 1)
    shown = np.rint(np.nan_to_num(share, nan=0) * 255).astype(np.uint8)
    result = worker.segment(values, probabilities=True)
    expected = worker.segment(np.repeat(shown[..., None], 3, axis=3), probabilities=True)
    np.testing.assert_allclose(
        worker.array(result["probabilities"]).astype(float),
        worker.array(expected["probabilities"]).astype(float),
        atol=0.02,
    )


def test_grey_bytes_are_taken_as_they_are(worker: Any) -> None:
    values = np.random.default_rng(2).integers(40, 90, (1, 40, 40)).astype("|u1")
    result = worker.segment(values, probabilities=True)
    expected = worker.segment(np.repeat(values[..., None], 3, axis=3), probabilities=True)
    np.testing.assert_array_equal(
        worker.array(result["probabilities"]), worker.array(expected["probabilities"])
    )
