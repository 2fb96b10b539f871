"""The benchmarks' yardstick computes what the network computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from sam2unet_core.network import SAM2UNet


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(96, 160), (64, 64)])
def test_the_reference_is_the_network(
    build: Callable[..., SAM2UNet],
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    training: bool,
) -> None:
    """In training too, with its side maps; in float64, so that only the steps differ."""
    monkeypatch.syspath_prepend(repository)
    from benchmarks.reference import PaddedAttention, ReferenceNetwork

    plain = build("nano", num_classes=2).double()
    for module in plain.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.5)  # filled places then weigh in
    reference = ReferenceNetwork(copy.deepcopy(plain)).train(training)
    assert any(isinstance(module, PaddedAttention) for module in reference.modules())
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        wanted, got = plain.train(training)(image), reference(image)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-9)
