"""Training on a CPU: faster attention, and a frozen trunk held in 16 bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sam2unet_core.monai_parts.cpu_attention import CPUTrainingAttention, attend_fast_on_cpu
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import (
    load_weights,
    round_frozen,
    save_delta,
    trunk_hash,
    trunk_identity,
)
from sam2unet_core.network.hiera import WindowAttention


@pytest.mark.parametrize(
    ("window", "height", "width", "pool"),
    [
        (16, 22, 22, False),  # edges on both sides
        (16, 6, 22, False),
        (4, 8, 8, False),
        (0, 6, 5, False),
        (8, 22, 22, True),
    ],
)
def test_gradients_of_attention_in_training_are_those_of_pytorch(
    window: int, height: int, width: int, pool: bool
) -> None:
    """Of tokens, weights and the bias, which also fills windows up."""
    torch.manual_seed(0)
    attention = WindowAttention(24, 24, heads=3, window=window, pool=pool).double()
    nn.init.normal_(attention.qkv.weight, std=0.4)
    nn.init.normal_(attention.qkv.bias)
    tokens = torch.randn(2, height, width, 24, dtype=torch.float64, requires_grad=True)
    sources = [tokens, attention.qkv.bias, attention.qkv.weight]
    found = []
    for layer in (CPUTrainingAttention(attention), attention):
        output = layer.train()(tokens)
        weights = torch.arange(output.numel(), dtype=torch.float64).view_as(output).sin()
        found.append([output, *torch.autograd.grad((output * weights).sum(), sources)])
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_bfloat16_trains_with_any_share_recomputed(share: float) -> None:
    torch.manual_seed(0)
    model = SAM2UNet("nano", train_trunk=False, gradient_checkpointing=share)
    names = list(model.state_dict())
    round_frozen(model, torch.bfloat16)
    attend_fast_on_cpu(model)
    assert list(model.state_dict()) == names
    with torch.autocast("cpu", torch.bfloat16):
        maps = model(torch.randn(1, 3, 96, 96))
    sum(each.float().square().mean() for each in maps).backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    kinds = {type(m) for m in model.modules() if isinstance(m, WindowAttention)}
    assert kinds == {CPUTrainingAttention}


def test_a_rounded_trunk_keeps_its_name_and_its_deltas_fit(tmp_path: Path) -> None:
    model, fresh = SAM2UNet("nano", train_trunk=False), SAM2UNet("nano", train_trunk=False)
    fresh.load_state_dict(model.state_dict())
    name = trunk_hash(model.state_dict())
    round_frozen(model, torch.bfloat16)
    linear = model.encoder.blocks[0].block.mlp.layers[0]
    assert linear.weight.dtype == torch.bfloat16
    assert linear.bias.dtype == torch.float32
    assert model.encoder.blocks[0].prompt_learn[0].weight.dtype == torch.float32
    assert trunk_hash(model.state_dict()) != name
    assert trunk_identity(model) == name
    save_delta(model, tmp_path / "delta.safetensors", task=None)
    load_weights(fresh, tmp_path / "delta.safetensors")
    load_weights(model, tmp_path / "delta.safetensors")


def test_a_trunk_that_learns_is_not_rounded() -> None:
    model = SAM2UNet("nano", train_trunk=True)
    round_frozen(model, torch.bfloat16)
    assert all(p.dtype == torch.float32 for p in model.parameters())
