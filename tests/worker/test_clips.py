"""Clips through the worker: every Nth frame, smaller, and results of frames with findings alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)

FRAMES = 6


def unpacked(worker: Any, result: dict[str, Any], columns: int) -> NDArray[np.uint8]:
    """Return the masks `(M, K, H, W)` of a sparse result."""
    return np.unpackbits(worker.array(result["masks"]), axis=-1, count=columns)


@pytest.fixture
def clip(root: Path) -> tuple[Path, NDArray[np.uint8]]:
    """A multi-frame object of an odd size, and its pixels `(N, H, W, 3)`."""
    noise = np.random.default_rng(8).random((FRAMES, 7, 11, 3))
    frames = np.repeat(np.repeat(noise, 7, axis=1), 7, axis=2)  # 49 x 77
    frames = (255 * frames).astype(np.uint8)
    dataset = Dataset()
    dataset.SOPClassUID = MultiFrameTrueColorSecondaryCaptureImageStorage
    dataset.SOPInstanceUID = dataset.SeriesInstanceUID = dataset.StudyInstanceUID = "2.25.1"
    dataset.Modality = "ES"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape[:3]
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "RGB"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = frames.tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = root / "clip.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path, frames


def test_every_nth_frame_is_read(worker: Any, clip: tuple[Path, NDArray[np.uint8]]) -> None:
    path, frames = clip
    found = worker.result("read_frames", path=str(path), start=1, step=2)
    np.testing.assert_array_equal(worker.array(found["frames"]), frames[1::2])
    for start, step, expected in (
        (0, 2, [0, 2]),
        (4, 2, [4]),
        (4, 1, [4, 5]),
        (0, 3, [0, 3]),
        (3, 3, [3]),
        (0, 2, [0, 2]),
        (4, 1, [4, 5]),
    ):
        given = {"path": str(path), "start": start, "step": step, "count": 2}
        piece = worker.result("read_frames", **given)
        np.testing.assert_array_equal(worker.array(piece["frames"]), frames[expected])


@pytest.mark.parametrize("scale", [2, 4])
def test_smaller_frames_are_means_of_squares(
    worker: Any, clip: tuple[Path, NDArray[np.uint8]], scale: int
) -> None:
    path, frames = clip
    rows, columns = -(-49 // scale), -(-77 // scale)
    result = worker.result("read_frames", path=str(path), scale=scale, start=2, count=2)
    assert result["frames"]["shape"] == [2, rows, columns, 3]
    assert (result["rows"], result["columns"]) == (49, 77)
    found = worker.array(result["frames"]).astype(float)
    for row, column in ((0, 0), (3, 5), (rows - 1, 1), (2, columns - 1), (rows - 1, columns - 1)):
        square = frames[2:4, row * scale :, column * scale :][:, :scale, :scale]
        np.testing.assert_allclose(found[:, row, column], square.mean(axis=(1, 2)), atol=0.51)
    none = worker.result("read_frames", path=str(path), scale=scale, start=99)
    assert none["frames"]["shape"] == [0, rows, columns, 3]


def test_what_is_out_of_range_is_refused(worker: Any, clip: Any) -> None:
    for wrong in ({"step": 0}, {"scale": 0}, {"scale": 65}, {"scale": 0.5}):
        assert worker.ask("read_frames", path=str(clip[0]), **wrong)["kind"] == "bad_request"


@pytest.fixture
def threshold(worker: Any, clip: tuple[Path, NDArray[np.uint8]]) -> float:
    """One that some frames reach and others do not."""
    found = worker.segment(clip[1], probabilities=True)
    highest = worker.array(found["probabilities"]).astype(float).max(axis=(1, 2, 3))
    return float(np.median(highest))


def test_a_sparse_result_has_the_masks_of_frames_with_findings(
    worker: Any, clip: tuple[Path, NDArray[np.uint8]], threshold: float
) -> None:
    path, frames = clip
    for given in (
        {"path": str(path)},
        {"path": str(path), "frames": [1, 2, 4, 5]},
        {"array": worker.give(frames), "channels": "rgb"},
    ):
        dense = worker.result("segment", input=given, threshold=threshold)
        assert dense["mask_frames"] is None
        masks = worker.array(dense["masks"])
        with_findings = np.flatnonzero(masks.any(axis=(1, 2, 3)))
        assert 0 < len(with_findings) < len(masks)
        event, before = worker.until_end_of(
            worker.send("segment", input=given, threshold=threshold, sparse=True)
        )
        sparse = event["result"]
        assert {each["event"] for each in before} == {"progress"}
        np.testing.assert_array_equal(worker.array(sparse["mask_frames"]), with_findings)
        np.testing.assert_array_equal(unpacked(worker, sparse, 77), masks[with_findings])
        assert sparse["frames"] == dense["frames"]
        assert sparse["frames_with_findings"] == dense["frames_with_findings"]


def test_another_threshold_can_be_sparse_too(
    worker: Any, clip: tuple[Path, NDArray[np.uint8]], threshold: float
) -> None:
    given = {"path": str(clip[0])}
    first = worker.result("segment", input=given, threshold=1.0, sparse=True)
    assert first["masks"]["shape"] == [0, 1, 49, 10]
    assert first["mask_frames"]["shape"] == [0]
    fields = {"result": first["result"], "threshold": threshold}
    dense = worker.result("rethreshold", **fields)
    sparse = worker.result("rethreshold", **fields, sparse=True)
    masks = worker.array(dense["masks"])
    with_findings = worker.array(sparse["mask_frames"])
    np.testing.assert_array_equal(with_findings, np.flatnonzero(masks.any(axis=(1, 2, 3))))
    np.testing.assert_array_equal(unpacked(worker, sparse, 77), masks[with_findings])
    some = worker.result("rethreshold", **fields, sparse=True, frames=[0, *with_findings.tolist()])
    np.testing.assert_array_equal(worker.array(some["mask_frames"]), with_findings)
    assert sparse["frames_with_findings"] == len(with_findings) > 0


def test_a_sparse_run_leaves_no_file_for_each_frame(worker: Any, clip: Any) -> None:
    before = set(worker.files())
    worker.result("segment", input={"path": str(clip[0])}, sparse=True)
    assert len(set(worker.files()) - before) <= 3  # masks, their frames, probabilities
