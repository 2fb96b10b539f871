"""Small networks, weights made by rule, and a cache that is this test's own."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sam2unet_core.network import SAM2UNet, Variant

Shapes = Iterable[tuple[str, tuple[int, ...]]]

SMALL = Variant(16, 1, (1, 2, 2, 1), (3,), (8, 4, 14, 7), width=8, sam2=True, name="small-frozen")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of trunks of this test, not made yet."""
    monkeypatch.setenv("SAM2UNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def frozen_variant() -> Variant:
    """A small network with a frozen trunk."""
    return SMALL


@pytest.fixture
def build() -> Callable[..., SAM2UNet]:
    """Builds a network in eval mode with weights made by rule."""
    return build_by_rule


@pytest.fixture
def weights_by_rule() -> Callable[..., dict[str, Tensor]]:
    """Makes weights from (name, shape) pairs."""
    return rule_weights


@pytest.fixture
def image_by_rule() -> Callable[[int, int], Tensor]:
    """Makes a `(1, 3, H, W)` float32 image of height H and width W."""

    def make(height: int, width: int) -> Tensor:
        random = np.random.default_rng([0, height, width])
        return torch.from_numpy(random.standard_normal((1, 3, height, width)).astype(np.float32))

    return make


def build_by_rule(
    variant: str | Variant = SMALL, *, seed: int = 0, num_classes: int = 1
) -> SAM2UNet:
    """Build a network in eval mode with weights made by rule."""
    with torch.device("meta"):  # no random values that are replaced at once
        model = SAM2UNet(variant, num_classes=num_classes)
    shapes = ((key, tuple(v.shape)) for key, v in model.state_dict().items())
    model.load_state_dict(rule_weights(shapes, seed=seed), assign=True)
    return model.eval()


def rule_weights(shapes: Shapes, *, seed: int = 0) -> dict[str, Tensor]:
    """Weights by the rule under which the golden values were made (`make_golden.py`)."""
    return {key: _weight(key, tuple(shape), seed) for key, shape in shapes}


def _weight(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    random = np.random.default_rng([seed, zlib.crc32(key.encode())])
    z = random.standard_normal(shape).astype(np.float32)
    if key.endswith("running_var"):
        z = 0.5 + np.abs(z)
    elif key.endswith(("running_mean", ".bias")) or "pos_embed" in key:
        z = 0.1 * z
    elif len(shape) >= 2:
        z = (0.6 if key.startswith("encoder.") else 1.5) * z / np.sqrt(np.prod(shape[1:]))
    else:
        z = 1 + 0.1 * z
    return torch.from_numpy(np.asarray(z, np.float32))
