"""The network computes what the authors' does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2unet_core.network import SAM2UNet

TOLERANCE = 1e-4  # of the standard deviation of the reference
GOLDEN = Path(__file__).with_name("golden_tiny.npz")


@pytest.mark.parametrize("name", ["tiny", "large"])
def test_network_reproduces_the_authors_outputs(
    shared_data: Path, name: str, weights_by_rule: Callable, image_by_rule: Callable
) -> None:
    reference = shared_data / "reference"
    shapes = json.loads((reference / f"{name}_state_dict_shapes.json").read_text())
    used = {k: tuple(s) for k, s in shapes.items() if not k.startswith("up4.")}
    with torch.device("meta"):  # no random values that are replaced at once
        model = SAM2UNet(name)
    model.load_state_dict(weights_by_rule(used.items()), strict=True, assign=True)
    with np.load(reference / f"{name}_golden.npz") as golden:
        for height, width in ((352, 352), (256, 320)):
            image = image_by_rule(height, width)
            maps, stages = _run(model, image)
            size = f"{height}x{width}"
            _assert_close(maps["main"], golden[f"{size}_main"])
            for side in ("side1", "side2"):
                _assert_close(maps[side][..., ::8, ::8], golden[f"{size}_{side}"])
            for i, stage in enumerate(stages):
                _assert_stage(stage, golden[f"{size}_stage{i}_mean_std_first8"])
    _assert_main_map_alone(model, image, maps["main"])


def test_network_reproduces_the_golden_values_of_the_repository(
    build: Callable, image_by_rule: Callable
) -> None:
    model, image = build("tiny"), image_by_rule(256, 320)
    maps, stages = _run(model, image)
    _assert_main_map_alone(model, image, maps["main"])
    with np.load(GOLDEN) as golden:
        for name, logits in maps.items():
            _assert_close(logits[..., ::16, ::16], golden[name], golden[f"{name}_std"])
        for i, stage in enumerate(stages):
            _assert_stage(stage, golden[f"stage{i}"])


def _run(model: SAM2UNet, image: Tensor) -> tuple[dict[str, NDArray[np.float32]], list[Tensor]]:
    """All three maps with the statistics of eval mode, and the trunk's four feature maps."""
    model.eval()
    model.training = True  # the network alone: its normalisation layers stay in eval mode
    stages: list[Tensor] = []
    hook = model.encoder.register_forward_hook(lambda *given: stages.extend(given[2]))
    with torch.inference_mode():
        maps: Mapping[str, Tensor] = dict(
            zip(("main", "side1", "side2"), model(image), strict=True)
        )
    hook.remove()
    model.eval()
    return {name: value.numpy() for name, value in maps.items()}, stages


def _assert_main_map_alone(model: SAM2UNet, image: Tensor, expected: NDArray[np.float32]) -> None:
    """In eval mode, the network gives the main map and no other."""
    with torch.inference_mode():
        np.testing.assert_array_equal(model(image).numpy(), expected)


def _assert_close(
    got: NDArray[np.float32], expected: NDArray[np.float32], std: float | None = None
) -> None:
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= TOLERANCE * (expected.std() if std is None else std)


def _assert_stage(features: Tensor, expected: NDArray[np.float64]) -> None:
    """`expected`: mean, standard deviation and the first 8 values of NCHW."""
    values = features.contiguous().double()
    got = [values.mean().item(), values.std().item(), *values.flatten()[:8].tolist()]
    assert np.abs(np.array(got) - expected).max() <= TOLERANCE * expected[1]
