"""Sizes, counts, modes and options of the network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

from sam2unet_core.errors import ConfigError
from sam2unet_core.network import VARIANTS, SAM2UNet, Variant
from sam2unet_core.network.keys import is_trunk_key
from sam2unet_core.network.sam2unet import join_channels

UP4 = 110_848
"""Parameters of a decoder step of width 64: 128*64*9 + 64*64*9 + 4*64. The paper's count includes
a fourth step, which the authors' files hold but their network never calls; we do not build it."""
# From the shapes of the authors' state dict, BatchNorm's buffers left out:
EXACT = {"tiny": (29_547_715, 2_698_243), "large": (216_529_891, 4_380_595)}
TABLE = {
    "tiny": ("29.55", "2.70"),
    "small": ("36.75", "2.80"),
    "base_plus": ("71.84", "3.16"),
    "large": ("216.53", "4.38"),
}


@pytest.mark.parametrize("name", TABLE)
def test_parameter_counts_are_those_of_the_published_table(name: str) -> None:
    with torch.device("meta"):
        model = SAM2UNet(name)
    total = sum(p.numel() for p in model.parameters()) + UP4
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad) + UP4
    assert (f"{total / 1e6:.2f}", f"{trainable / 1e6:.2f}") == TABLE[name]
    assert EXACT.get(name, (total, trainable)) == (total, trainable)


@pytest.mark.parametrize("size", [(32, 32), (33, 100), (349, 352), (64, 47), (40, 330)])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_output_has_the_size_of_the_input(
    size: tuple[int, int], num_classes: int, build: Callable
) -> None:
    model = build(num_classes=num_classes)
    image = torch.rand(2, 3, *size)
    with torch.inference_mode():
        assert model(image).shape == (2, num_classes, *size)
        maps = model.train()(image)
    assert [m.shape for m in maps] == [(2, num_classes, *size)] * 3


def test_odd_size_equals_the_image_filled_up_with_zeros(build: Callable) -> None:
    model = build()
    image = torch.randn(1, 3, 349, 60)
    filled = torch.zeros(1, 3, 352, 64)
    filled[..., :349, :60] = image
    with torch.inference_mode():
        assert torch.equal(model(image), model(filled)[..., :349, :60])


def test_images_of_a_batch_do_not_mix(build: Callable) -> None:
    model = build()
    images = torch.randn(3, 3, 96, 64)
    with torch.inference_mode():
        alone = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(model(images), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 31, 64), "31 x 64 pixels, expected at least 32 x 32"),
        ((1, 1, 64, 64), r"expected \(B, 3, H, W\)"),
        ((3, 64, 64), r"expected \(B, 3, H, W\)"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(
    shape: tuple[int, ...], message: str, build: Callable
) -> None:
    with pytest.raises(ValueError, match=message):
        build()(torch.zeros(shape))


def test_sam2_trunk_is_frozen_but_its_adapters_learn() -> None:
    with torch.device("meta"):
        model = SAM2UNet("tiny")
    assert model.trunk_is_frozen
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "encoder.blocks.11.prompt_learn.2.weight" in learning
    assert not any(
        name.startswith("encoder.") and ".prompt_learn." not in name for name in learning
    )
    assert {n.split(".")[0] for n in learning} >= {"rfb1", "rfb4", "up3", "head", "side1", "side2"}


@pytest.mark.parametrize("name", ["nano", "starter"])
def test_small_networks_of_our_own_learn_everywhere(name: str) -> None:
    model = SAM2UNet(name)
    assert not model.trunk_is_frozen
    maps = model(torch.randn(2, 3, 64, 64))
    torch.stack(list(maps)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) < 8e6


def test_train_trunk_overrides_the_default_both_ways(frozen_variant: Variant) -> None:
    assert not SAM2UNet(frozen_variant, train_trunk=True).trunk_is_frozen
    assert SAM2UNet("nano", train_trunk=False).trunk_is_frozen


def test_frozen_trunk_stays_as_it_is_in_a_training_step(frozen_variant: Variant) -> None:
    model = SAM2UNet(frozen_variant)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    sum(m.square().mean() for m in model(torch.randn(2, 3, 64, 64))).backward()
    optimizer.step()
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert not any(is_trunk_key(key) for key in changed)
    assert "encoder.blocks.0.prompt_learn.0.weight" in changed


def test_adapters_start_as_the_authors_later_fix() -> None:
    adapter = SAM2UNet("starter").encoder.blocks[9].prompt_learn
    for layer in (adapter[0], adapter[2]):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not layer.bias.any()


def test_adapters_can_start_as_first_published() -> None:
    layer = SAM2UNet("starter", adapter_init="default").encoder.blocks[9].prompt_learn[0]
    # PyTorch draws uniformly from +-1/sqrt(384), whose standard deviation is that over sqrt(3).
    assert layer.weight.std().item() == pytest.approx(384**-0.5 / 3**0.5, rel=0.05)
    assert layer.bias.any()
    with pytest.raises(ValueError, match="adapter_init is 'zeros'"):
        SAM2UNet("nano", adapter_init="zeros")


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    image = torch.randn(1, 3, 64, 96)
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(3)
        model = SAM2UNet("nano", gradient_checkpointing=checkpointing, drop_path=0.5)
        sum(m.square().mean() for m in model(image)).backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=1e-5, atol=1e-8)


def test_gradient_checkpointing_stores_less() -> None:
    stored = []
    for checkpointing in (False, True):
        sizes: list[int] = []
        model = SAM2UNet("nano", gradient_checkpointing=checkpointing)
        keep = torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=sizes: (s.append(t.numel()), t)[1], lambda t: t
        )
        with keep:
            model.encoder(torch.randn(1, 3, 64, 64))
        stored.append(sum(sizes))
    assert stored[1] < stored[0] / 3


def test_drop_path_skips_whole_samples_in_training_only() -> None:
    torch.manual_seed(0)
    model = SAM2UNet("nano", drop_path=0.9)
    last = model.encoder.blocks[-1].block.drop_path
    assert [b.block.drop_path.probability for b in model.encoder.blocks] == pytest.approx(
        [0.0, 0.225, 0.45, 0.675, 0.9]
    )
    ones = torch.ones(4000, 2, 2, 1)
    dropped = last.train()(ones)
    kept = dropped[:, 0, 0, 0] != 0
    assert torch.equal(dropped, kept[:, None, None, None] * torch.full_like(ones, 10.0))
    assert kept.float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(last.eval()(ones), ones)


def test_half_precision_autocast_stays_close(build: Callable) -> None:
    model, image = build(), torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        exact = model(image)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(image).float()
    assert (rough - exact).abs().max() < 0.1 * exact.std()


def test_unknown_variant_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="unknown variant 'huge'; choose from nano, starter"):
        SAM2UNet("huge")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 3}, "multiple of num_heads"),
        ({"stages": (1, 2, 0, 1)}, "stages must be four"),
        ({"global_blocks": (9,)}, "must be indices of blocks"),
        ({"windows": (8, 4, 7, 7)}, "must be even"),
        ({"windows": (16, 4, 8, 8)}, "first window"),
    ],
)
def test_a_row_that_cannot_be_built_is_refused(changes: dict[str, object], message: str) -> None:
    row = VARIANTS["nano"].to_dict() | changes
    with pytest.raises(ConfigError, match=message):
        Variant.from_dict(row)


def test_a_row_survives_json() -> None:
    for row in VARIANTS.values():
        assert Variant.from_dict(row.to_dict()) == row


def test_variants_table_has_the_trunk_of_sam2() -> None:
    assert {name for name, row in VARIANTS.items() if row.sam2} == set(TABLE)
    assert isinstance(SAM2UNet("nano").encoder, nn.Module)


def test_importing_the_network_needs_nothing_heavy_but_torch() -> None:
    code = (
        "import sys, sam2unet_core.network, sam2unet_core.network.checkpoint\n"
        "print(sorted({'monai', 'requests', 'rich', 'scipy', 'pydicom'} & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


def test_joining_channels_leaves_gradients_what_they_are_and_makes_them_dense():
    plain = [torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last) for _ in "ab"]
    seen, gradients = [], []
    for join in (lambda m: torch.cat(m, 1), lambda m: join_channels(m, training=True)):
        maps = [each.clone().requires_grad_() for each in plain]
        inner = [each * 2 for each in maps]
        (join(inner) * torch.arange(6.0)[:, None, None]).sum().backward()
        gradients.append([each.grad for each in maps])
    torch.testing.assert_close(gradients[0], gradients[1])
    inner = [(each.clone().requires_grad_() * 2) for each in plain]
    joined = join_channels(inner, training=True)
    inner[0].register_hook(
        lambda g: seen.append(g.is_contiguous(memory_format=torch.channels_last))
    )
    joined.mul(joined).sum().backward()
    assert seen == [True]
