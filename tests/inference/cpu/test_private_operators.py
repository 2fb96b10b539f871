"""Private operators of PyTorch are tried before use; without them plain layers stay."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from sam2unet_core.inference.cpu import packed
from sam2unet_core.inference.cpu.packed import (
    PackedConvolution,
    PackedLinear,
    can_pack,
    can_pack_for_mkl,
)
from sam2unet_core.inference.cpu.prepare import optimise
from sam2unet_core.network import SAM2UNet


@pytest.fixture(autouse=True)
def _tried_anew() -> Iterator[None]:
    can_pack.cache_clear()
    can_pack_for_mkl.cache_clear()
    yield
    can_pack.cache_clear()
    can_pack_for_mkl.cache_clear()


class Otherwise:
    """PyTorch's operators, one of which is another than it was."""

    def __init__(self, name: str, change: object) -> None:
        self.name, self.change = name, change

    def __getattr__(self, name: str) -> object:
        operator = getattr(torch.ops.mkldnn, name)
        if name != self.name:
            return operator
        if self.change is None:
            raise AttributeError(name)
        return self.change(operator) if callable(self.change) else self.change


def other_signature(operator: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda x, *, scale: operator(x, scale)


def other_numbers(operator: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda *given: operator(*given) + 0.01


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("_reorder_linear_weight", None),
        ("_reorder_linear_weight", other_signature),
        ("_convolution_pointwise", None),
        ("_convolution_pointwise", other_signature),
        ("_convolution_pointwise", other_numbers),
    ],
)
def test_an_operator_that_changed_leaves_the_plain_layers_and_says_so(
    name: str,
    change: object,
    build: Callable[..., SAM2UNet],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    operators = Otherwise(name, change)
    monkeypatch.setattr(packed, "mkldnn", lambda: operators)
    model = build("nano")
    image = torch.randn(1, 3, 64, 64)
    with caplog.at_level(logging.WARNING), torch.inference_mode():
        wanted = copy.deepcopy(model)(image)
        optimise(model, size=(64, 64), dtype=torch.float32)
        torch.testing.assert_close(model(image), wanted, rtol=0, atol=2e-5)
    kinds = {type(module) for module in model.modules()}
    assert not kinds & {PackedLinear, PackedConvolution}
    assert {nn.Linear, nn.Conv2d} <= kinds
    (told,) = caplog.messages
    assert "layers in float32 are not packed, so inference is slower" in told
    assert torch.__version__ in told


def test_trying_them_draws_no_random_numbers() -> None:
    torch.manual_seed(7)
    wanted = torch.rand(1)
    torch.manual_seed(7)
    can_pack(torch.float32)
    can_pack_for_mkl()
    assert torch.equal(torch.rand(1), wanted)
