"""Exported networks compute what the network does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sam2unet_core.network import SAM2UNet, Variant
from tests.network.conftest import build_by_rule

SIZES = [(1, 160, 160), (2, 157, 108), (1, 32, 33), (3, 64, 224)]
VARIANT = Variant(16, 1, (1, 1, 2, 1), (3,), (8, 4, 14, 7), width=8, name="export")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.fixture(scope="module")
def scripted() -> tuple[SAM2UNet, torch.jit.ScriptModule]:
    """A network of two classes, and its script."""
    model = build_by_rule(VARIANT, num_classes=2)
    return model, torch.jit.script(model)


@pytest.mark.parametrize("method", ["script", "trace"])
def test_torchscript_stays_right_at_every_size(
    method: str, scripted: tuple[SAM2UNet, torch.jit.ScriptModule], tmp_path: Path
) -> None:
    model, program = scripted
    if method == "trace":
        program = torch.jit.trace(model, torch.randn(1, 3, 160, 160))
    program.save(str(tmp_path / "model.ts"))
    program = torch.jit.load(str(tmp_path / "model.ts"))
    with torch.inference_mode():
        for batch, height, width in SIZES:
            image = torch.randn(batch, 3, height, width)
            torch.testing.assert_close(program(image), model(image), rtol=0, atol=1e-5)


def test_scripted_network_can_be_part_of_a_larger_script(
    scripted: tuple[SAM2UNet, torch.jit.ScriptModule],
) -> None:
    class Probabilities(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Tensor) -> Tensor:
            return torch.sigmoid(self.network(image))

    model, _ = scripted
    image = torch.randn(1, 3, 64, 64)
    larger = torch.jit.script(Probabilities(model).eval())
    torch.testing.assert_close(larger(image), model(image).sigmoid(), rtol=0, atol=1e-5)


def test_scripted_network_refuses_a_small_image(
    scripted: tuple[SAM2UNet, torch.jit.ScriptModule],
) -> None:
    _, program = scripted
    with pytest.raises(torch.jit.Error, match="at least 32 x 32"):
        program(torch.zeros(1, 3, 31, 64))


def test_an_exported_program_takes_any_batch(build: Callable) -> None:
    """What ONNX Runtime makes of one is in tests/runtimes."""
    model = build(VARIANT, num_classes=2)
    example = torch.randn(2, 3, 100, 64)
    batch = {"image": {0: torch.export.Dim("batch")}}
    program = torch.export.export(model, (example,), dynamic_shapes=batch)
    image = torch.randn(3, 3, 100, 64)
    expected = model(image).detach()
    torch.testing.assert_close(program.module()(image), expected, rtol=0, atol=1e-5)
