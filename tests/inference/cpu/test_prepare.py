"""What is optimised for inference computes what the plain network computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from sam2unet_core.inference.cpu.packed import (
    MKLLinear,
    PackedConvolution,
    PackedLinear,
    can_pack,
)
from sam2unet_core.inference.cpu.prepare import optimise, share_trunk
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import load_model, save_delta, save_full
from sam2unet_core.network.keys import is_trunk_key


@pytest.mark.parametrize("variant", ["nano", "tiny"])
@pytest.mark.parametrize("size", [(96, 160), (70, 45)])
def test_an_optimised_network_computes_the_same(
    build: Callable[..., SAM2UNet], variant: str, size: tuple[int, int]
) -> None:
    """The same as float64, that is: two ways of float32 differ by the errors of both."""
    torch.manual_seed(0)
    model = build(variant, num_classes=2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    image, other = torch.randn(2, 3, *size), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        exact = copy.deepcopy(model).double()
        wanted, elsewhere = exact(image.double()), exact(other.double())
        optimise(model, size=size, dtype=torch.float32)
        assert not any(isinstance(m, nn.BatchNorm2d | nn.Linear | nn.GELU) for m in model.modules())
        torch.testing.assert_close(model(image).double(), wanted, rtol=0, atol=2e-5)
        # Another size than the one whose position embedding was computed in advance.
        torch.testing.assert_close(model(other).double(), elsewhere, rtol=0, atol=2e-5)


def test_a_network_can_be_optimised_again_for_another_size(build: Callable[..., SAM2UNet]) -> None:
    """As by the two segmenters of the inference config, which share a network."""
    model = build("nano")
    images = [torch.randn(1, 3, 64, 64), torch.randn(1, 3, 96, 160)]
    with torch.inference_mode():
        wanted = [model(image) for image in images]
        for image in (*images, images[0]):
            optimise(model, size=tuple(image.shape[-2:]), dtype=torch.float32)
            assert model.encoder.size == tuple(image.shape[-2:])
            for each, expected in zip(images, wanted, strict=True):
                torch.testing.assert_close(model(each), expected, rtol=0, atol=2e-5)


def test_a_network_prepared_in_one_type_is_refused_in_another(
    build: Callable[..., SAM2UNet],
) -> None:
    model = build("nano")
    optimise(model, size=(64, 64), dtype=torch.float32)
    with pytest.raises(ValueError, match=r"prepared in torch.float32, not torch.bfloat16"):
        optimise(model, size=(64, 64), dtype=torch.bfloat16)


@pytest.mark.parametrize("dtype", [d for d in (torch.bfloat16, torch.float16) if can_pack(d)])
def test_16_bits_stay_near_and_in_the_linear_layers(
    build: Callable[..., SAM2UNet], dtype: torch.dtype
) -> None:
    """Sums of blocks are of 16 bits in float16 alone, which keeps eight times more of them."""
    near = {torch.bfloat16: 0.05, torch.float16: 0.01}[dtype]
    model = build("nano")
    image = torch.randn(2, 3, 96, 160)
    with torch.inference_mode():
        wanted = model(image)
        optimise(model, size=(96, 160), dtype=dtype)
        got = model(image.to(dtype)).float()
    assert 0 < (got - wanted).abs().max() < near * wanted.abs().max()
    trunk = model.encoder.trunk
    assert trunk.blocks[0].block.norm1.weight.dtype == torch.float32
    assert trunk.position.dtype == (dtype if dtype == torch.float16 else torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [(96, 160), (64, 64)])
def test_off_the_cpu_one_type_goes_through_all_layers(
    build: Callable[..., SAM2UNet], dtype: torch.dtype, size: tuple[int, int]
) -> None:
    """The meta device has no numbers, but refuses products of two types as a GPU does."""
    model = build("nano", num_classes=2).to("meta")
    with torch.inference_mode():
        optimise(model, size=(96, 160), dtype=dtype)
        found = model(torch.empty(1, 3, *size, dtype=dtype, device="meta"))
    assert (found.dtype, found.shape) == (dtype, (1, 2, *size))
    assert {value.dtype for value in model.state_dict().values()} == {dtype}


@pytest.mark.parametrize(
    "dtype", [d for d in (torch.float32, torch.bfloat16, torch.float16) if can_pack(d)]
)
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("one_core", [False, True])
def test_a_packed_layer_is_the_linear_layer(
    dtype: torch.dtype, gelu: bool, one_core: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sam2unet_core.inference.cpu.packed._stays_on_one_core", lambda *_: one_core
    )
    torch.manual_seed(0)
    linear = nn.Linear(40, 24).to(dtype)
    x = torch.randn(2, 5, 40, 7).to(dtype).transpose(2, 3)
    wanted = nn.functional.gelu(linear(x).float()) if gelu else linear(x).float()
    atol = 1e-5 if dtype == torch.float32 else 0.02
    with torch.inference_mode():
        layer = PackedLinear(linear, gelu=gelu, rows=35)
        got = layer(x)
        assert got.dtype == dtype
        torch.testing.assert_close(got.float(), wanted, rtol=0, atol=atol)
        if not gelu:
            onto = torch.randn(2, 5, 7, 24).to(dtype)
            added = onto.float() + wanted
            torch.testing.assert_close(layer.add(x, onto).float(), added, rtol=0, atol=atol)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="PyTorch is built without MKL")
@pytest.mark.parametrize("shape", [(1, 35), (2, 35), (1, 5, 6), (3, 40), (1, 1)])
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_mkls_layer_is_the_linear_layer(shape: tuple[int, ...], gelu: bool, bias: bool) -> None:
    """For the rows that it is made for, several times those, fewer and what is between."""
    torch.manual_seed(0)
    linear = nn.Linear(40, 24, bias=bias)
    x = torch.randn(*shape[:-1], 40, shape[-1]).transpose(-1, -2)
    wanted = nn.functional.gelu(linear(x)) if gelu else linear(x)
    with torch.inference_mode():
        got = MKLLinear(linear, gelu=gelu, rows=35)(x)
    assert got.shape == (*shape, 24)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="PyTorch is built without MKL")
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("size", [(96, 160), (64, 64), (160, 224)])
def test_a_network_with_mkls_layers_computes_the_same(
    build: Callable[..., SAM2UNet],
    size: tuple[int, int],
    images: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the size that it was prepared for and at others, whatever the processor."""
    monkeypatch.setattr("sam2unet_core.inference.cpu.packed._suits_mkl", lambda _: True)
    torch.manual_seed(2)
    model = build("nano")
    image = torch.randn(images, 3, *size)
    with torch.inference_mode():
        wanted = copy.deepcopy(model).double()(image.double())
        optimise(model, size=(96, 160), dtype=torch.float32)
        assert any(isinstance(layer, MKLLinear) for layer in model.modules())
        found = model(image).double()
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5 * float(wanted.std()))


@pytest.mark.parametrize(
    "dtype", [d for d in (torch.float32, torch.bfloat16, torch.float16) if can_pack(d)]
)
@pytest.mark.parametrize("size", [(22, 30), (9, 5)])
def test_a_packed_convolution_is_the_convolution(dtype: torch.dtype, size: tuple[int, int]) -> None:
    """On maps of the size that it was packed for and of another."""
    torch.manual_seed(0)
    plain = nn.Conv2d(12, 20, (3, 5), stride=(1, 2), padding=(2, 3), dilation=(2, 1)).to(dtype)
    maps = torch.randn(2, 12, *size).to(dtype, memory_format=torch.channels_last)
    with torch.inference_mode():
        wanted = plain(maps).float()
        got = PackedConvolution(plain, size=(22, 30))(maps)
    assert got.dtype == dtype
    atol = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(got.float(), wanted, rtol=0, atol=atol)


def test_two_networks_on_one_trunk_differ_in_the_rest(build: Callable[..., SAM2UNet]) -> None:
    torch.manual_seed(1)
    donor, other = build("nano"), build("nano", num_classes=2)
    wanted = copy.deepcopy(other)
    share = {k: v for k, v in donor.state_dict().items() if ".block." in k or "embed" in k}
    wanted.load_state_dict(share, strict=False)
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected, first = wanted(image), donor(image)
        optimise(donor, size=(64, 64), dtype=torch.float32)
        share_trunk(other, donor)
        optimise(other, size=(64, 64), dtype=torch.float32)
        torch.testing.assert_close(other(image), expected, rtol=0, atol=2e-5)
        torch.testing.assert_close(donor(image), first, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["full", "delta"])
def test_large_matrices_are_read_in_16_bits_and_nothing_else(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SAM2UNet("nano", train_trunk=False).eval()
    path = tmp_path / "w.safetensors"
    if kind == "full":
        save_full(model, path, task=None)
    else:
        trunk = tmp_path / "trunk.safetensors"
        save_full(model, trunk, task=None)
        monkeypatch.setattr("sam2unet_core.network.checkpoint.loading.find_trunk", lambda _: trunk)
        save_delta(model, path, task=None)
    read = load_model(path, matrices=torch.bfloat16)
    for (name, value), (_, wanted) in zip(
        read.state_dict().items(), model.state_dict().items(), strict=True
    ):
        in_file = kind == "full" or not is_trunk_key(name)
        large = value.ndim == 2 and value.numel() >= 2**14 and in_file
        assert value.dtype == (torch.bfloat16 if large else wanted.dtype), name
        torch.testing.assert_close(value.to(wanted.dtype), wanted, rtol=0.01, atol=1e-3)
    assert not any(p.is_meta for p in read.parameters())
    path.unlink()  # nothing holds the file open, so this works on Windows too
    optimise(read, size=(64, 64), dtype=torch.bfloat16)
    with torch.inference_mode():
        assert torch.isfinite(read(torch.zeros(1, 3, 64, 64).bfloat16())).all()
