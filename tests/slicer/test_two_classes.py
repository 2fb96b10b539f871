"""A task with two classes, from the button to two segments, with the real worker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import vtk
from mask_cases import masksOf
from SAM2UNetLib.Request import Request

from sam2unet_core.files import file_sha256
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import save_full
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.task import Task, Weights


@pytest.fixture(params=["sigmoid", "softmax"])
def bundle_of_two(request, two_classes, tmp_path):
    """A bundle with an untrained network of two classes, overlapping or not."""
    task = Task.from_dict({**two_classes, "activation": request.param})
    (tmp_path / "configs").mkdir()
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "model.safetensors"
    torch.manual_seed(11)
    network = SAM2UNet("nano", num_classes=task.num_channels).eval()
    save_full(network, path, task=task)
    weights = Weights("models/model.safetensors", file_sha256(path), "nano")
    replace(task, weights=weights).save(tmp_path / "configs" / "task.json")
    return tmp_path


@pytest.fixture
def pictures():
    return np.random.default_rng(12).integers(0, 256, (3, 40, 48), np.uint8)


def by_the_library(bundle, pictures):
    segmenter = Segmenter.open(bundle, device="cpu", runtime="exact")
    return segmenter.probabilities(np.repeat(pictures[..., None], 3, axis=3))


def test_each_class_gets_its_own_segment_with_its_own_voxels(
    session, volume, bundle_of_two, pictures, run
):
    node = volume(pictures)
    found = by_the_library(bundle_of_two, pictures)
    assert found.shape == (3, 2, 40, 48)
    threshold = float(np.round(np.median(found), 4))
    expected = found >= threshold
    session.start(
        Request(node, "volume", bundle=str(bundle_of_two), runtime="exact", threshold=threshold)
    )
    told = run(session)
    assert told[-1][0] == "finished", told
    segmentation = told[-1][1].GetSegmentation()
    ids = segmentation.GetSegmentIDs()
    assert [segmentation.GetSegment(name).GetName() for name in ids] == ["Nerve", "Vessel"]
    got = masksOf(told[-1][1], node, session.task)
    assert (got != expected).mean() < 1e-3
    assert (got[:, 0] != got[:, 1]).any()
    for name, code in zip(ids, ("84782009", "59820001"), strict=True):
        value = vtk.reference("")
        assert segmentation.GetSegment(name).GetTag("TerminologyEntry", value)
        assert code in str(value)


def test_classes_that_exclude_one_another_do_not_meet_from_one_half_on(
    session, volume, bundle_of_two, pictures, run
):
    session.start(
        Request(
            volume(pictures), "volume", bundle=str(bundle_of_two), runtime="exact", threshold=0.51
        )
    )
    told = run(session)
    assert told[-1][0] == "finished", told
    got = masksOf(told[-1][1], session._request.inputNode, session.task)
    found = by_the_library(bundle_of_two, pictures)
    assert (got != (found >= 0.51)).mean() < 1e-3
    if session.task["activation"] == "softmax":
        assert not (got[:, 0] & got[:, 1]).any()


def test_the_threshold_moves_both_classes_and_undo_takes_both_back(
    session, volume, scene, bundle_of_two, pictures, run
):
    node = volume(pictures)
    found = by_the_library(bundle_of_two, pictures)
    session.start(
        Request(node, "volume", bundle=str(bundle_of_two), runtime="exact", threshold=0.01)
    )
    run(session)
    higher = float(np.quantile(found, 0.8))
    assert session.rethreshold(threshold=higher)
    told = run(session)
    got = masksOf(told[-1][1], node, session.task)
    assert (got != (found >= higher)).mean() < 5e-3
    session.undo()
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
