"""Exported networks compute what the network does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sam2unet_core.network import Variant

SIZES = [(1, 160, 160), (2, 157, 108), (1, 32, 33), (3, 64, 224)]
VARIANT = Variant(16, 1, (1, 1, 2, 1), (3,), (8, 4, 14, 7), width=8, name="export")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.mark.parametrize("method", ["script", "trace"])
def test_torchscript_stays_right_at_every_size(
    method: str, build: Callable, tmp_path: Path
) -> None:
    model = build(VARIANT, num_classes=2)
    example = torch.randn(1, 3, 160, 160)
    program = torch.jit.script(model) if method == "script" else torch.jit.trace(model, example)
    program.save(str(tmp_path / "model.ts"))
    program = torch.jit.load(str(tmp_path / "model.ts"))
    with torch.inference_mode():
        for batch, height, width in SIZES:
            image = torch.randn(batch, 3, height, width)
            torch.testing.assert_close(program(image), model(image), rtol=0, atol=1e-5)


def test_scripted_network_can_be_part_of_a_larger_script(build: Callable) -> None:
    class Probabilities(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Tensor) -> Tensor:
            return torch.sigmoid(self.network(image))

    model = build(VARIANT)
    image = torch.randn(1, 3, 64, 64)
    scripted = torch.jit.script(Probabilities(model).eval())
    torch.testing.assert_close(scripted(image), model(image).sigmoid(), rtol=0, atol=1e-5)


def test_scripted_network_refuses_a_small_image(build: Callable) -> None:
    scripted = torch.jit.script(build(VARIANT))
    with pytest.raises(torch.jit.Error, match="at least 32 x 32"):
        scripted(torch.zeros(1, 3, 31, 64))


def test_an_exported_program_takes_any_batch(build: Callable) -> None:
    """What ONNX Runtime makes of one is in tests/runtimes."""
    model = build(VARIANT, num_classes=2)
    example = torch.randn(2, 3, 100, 64)
    batch = {"image": {0: torch.export.Dim("batch")}}
    program = torch.export.export(model, (example,), dynamic_shapes=batch)
    image = torch.randn(3, 3, 100, 64)
    expected = model(image).detach()
    torch.testing.assert_close(program.module()(image), expected, rtol=0, atol=1e-5)
