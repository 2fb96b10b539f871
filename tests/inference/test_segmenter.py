from dataclasses import replace

import numpy as np
import pytest
import torch

from sam2unet_core.errors import ConfigError, DataError, MissingWeightsError, WeightsError
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import save_full
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.task import load_preset


@pytest.fixture(scope="module")
def task():
    return replace(load_preset("polyp"), image_size=(64, 96))


@pytest.fixture(scope="module")
def weights(tmp_path_factory, task):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "nano.safetensors"
    save_full(SAM2UNet("nano"), file, task=task, dtype=torch.float32)
    return file


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (5, 50, 70, 3)).astype(np.uint8)


def test_probabilities_have_the_frames_own_size_and_stay_between_0_and_1(weights, frames):
    found = Segmenter.open(weights=weights, device="cpu").probabilities(frames)
    assert found.shape == (5, 1, 50, 70)
    assert found.dtype == np.float32
    assert 0 <= found.min() < found.max() <= 1


def test_probabilities_do_not_depend_on_the_company_of_a_frame(weights, frames):
    segmenter = Segmenter.open(weights=weights, device="cpu", runtime="exact")
    together = segmenter.probabilities(frames)
    alone = np.concatenate([segmenter.probabilities(frame[None]) for frame in frames])
    np.testing.assert_allclose(together, alone, atol=2e-6)


def test_weights_bring_their_task_along(weights, task):
    assert Segmenter.open(weights=weights, device="cpu").task == task
    other = Segmenter.open(weights=weights, task="breast_ultrasound", device="cpu")
    assert other.task.name == "breast_ultrasound"


def test_no_frames_give_no_maps(weights):
    segmenter = Segmenter.open(weights=weights, device="cpu")
    assert segmenter.label_maps(np.zeros((0, 50, 70, 3), np.uint8)).shape == (0, 50, 70)


@pytest.mark.parametrize("shape", [(50, 70, 3), (1, 50, 70), (1, 50, 70, 4)])
def test_frames_of_another_shape_are_refused(weights, shape):
    segmenter = Segmenter.open(weights=weights, device="cpu")
    with pytest.raises(DataError, match=r"expected \(N, H, W, 3\) uint8"):
        segmenter.probabilities(np.zeros(shape, np.uint8))


def test_weights_with_other_classes_than_the_task_are_refused(weights):
    with pytest.raises(WeightsError, match="1 output channels, the task 'nerve_ultrasound' need"):
        Segmenter.open(weights=weights, task="nerve_ultrasound", device="cpu")


def test_a_task_without_weights_says_how_to_get_some():
    with pytest.raises(MissingWeightsError, match="sam2unet train --task skin_lesion"):
        Segmenter.open(task="skin_lesion")


def test_a_device_that_is_not_there_is_refused(weights):
    with pytest.raises(ConfigError, match="device 'cuda:77'"):
        Segmenter.open(weights=weights, device="cuda:77")
    with pytest.raises(ConfigError, match="device 'abacus'"):
        Segmenter.open(weights=weights, device="abacus")


def test_a_runtime_that_does_not_exist_is_refused(weights):
    with pytest.raises(ConfigError, match="unknown runtime 'warp'; choose from auto, exact"):
        Segmenter.open(weights=weights, runtime="warp")


def test_a_trunk_alone_does_not_segment(tmp_path):
    network = SAM2UNet("tiny")
    trunk = {
        key.removeprefix("encoder.").replace(".block.", ".", 1): value
        for key, value in network.state_dict().items()
        if key.startswith("encoder.") and "prompt_learn" not in key
    }
    file = tmp_path / "sam2_hiera_tiny.pt"
    torch.save({"model": {f"image_encoder.trunk.{k}": v for k, v in trunk.items()}}, file)
    with pytest.raises(WeightsError, match="holds only SAM2's trunk"):
        Segmenter.open(weights=file, device="cpu")


def test_an_output_that_is_no_number_is_no_empty_mask(weights, frames):
    segmenter = Segmenter.open(weights=weights, device="cpu")
    with torch.no_grad():
        segmenter.runtime.network.head.bias.fill_(float("nan"))
    with pytest.raises(WeightsError, match="not a number"):
        segmenter.probabilities(frames)


def test_what_was_measured_of_other_weights_is_not_inherited(weights, task):
    measured = replace(task, metrics={"note": "starter model"})
    assert Segmenter.open(task=measured, weights=weights, device="cpu").task.metrics == {}
