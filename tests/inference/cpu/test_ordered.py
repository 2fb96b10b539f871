"""Tokens that lie window by window give what the trunk gives on its grid."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from sam2unet_core.inference.cpu.prepare import OrderedTrunk, window_order
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.variants import Variant


def test_the_order_of_a_grid_that_windows_do_not_divide() -> None:
    """Three rows of five in windows of two by two, by hand."""
    order = window_order(3, 5, 2, torch.float32)
    # fmt: off
    assert order.places.tolist() == [
        0, 1, 5, 6, 2, 3, 7, 8,          # two whole windows
        4, 9, -1, 10, 11, -1, 12, 13, -1,  # the edges: three windows, each with its filler
        14, -1,                          # the corner
    ]
    # fmt: on
    assert [group[:4] for group in order.groups] == [(0, 2, 4, 4), (8, 3, 3, 2), (17, 1, 2, 1)]
    whole, edges, corner = (group.log_count for group in order.groups)
    assert whole is None
    # A filler of an edge stands for two places, that of the corner for three.
    torch.testing.assert_close(edges, torch.tensor([1.0, 1, 2]).log().view(1, 1, 1, 3))
    torch.testing.assert_close(corner, torch.tensor([1.0, 3]).log().view(1, 1, 1, 2))
    assert order.padding.tolist() == [10, 13, 16, 18]
    assert order.whole[:4] == (0, 1, 19, 15)
    counts = order.whole.log_count.exp().flatten()
    assert counts.tolist() == [0.0 if place < 0 else 1.0 for place in order.places.tolist()]


def test_what_pooling_joins_are_neighbours() -> None:
    """Four rows of six in windows of four: the edge has two columns."""
    order = window_order(4, 6, 4, torch.float32)
    # fmt: off
    assert order.places.tolist() == [
        0, 1, 6, 7,  2, 3, 8, 9,  12, 13, 18, 19,  14, 15, 20, 21,
        4, 5, 10, 11,  16, 17, 22, 23, -1,
    ]
    # fmt: on


@pytest.mark.parametrize(
    ("height", "width", "window"), [(22, 22, 16), (8, 8, 4), (3, 3, 8), (24, 16, 16), (6, 40, 7)]
)
def test_what_shares_a_window_lies_together(height: int, width: int, window: int) -> None:
    order = window_order(height, width, window, torch.float32)
    assert order.size == (height, width)
    on_grid = order.places[order.places >= 0]
    assert sorted(on_grid.tolist()) == list(range(height * width))
    across = -(-width // window)
    end = 0
    for group in order.groups:
        assert group.start == end
        end += group.windows * group.tokens
        for place in order.places[group.start : end].view(group.windows, group.tokens):
            real = place[: group.real]
            assert (place[group.real :] == -1).all()
            number = real // width // window * across + real % width // window
            assert (number == number[0]).all()
    assert end == len(order.places)


@pytest.mark.parametrize("variant", ["nano", "starter", "tiny"])
@pytest.mark.parametrize("size", [(96, 160), (64, 64), (352, 96)])
def test_features_are_those_of_the_trunk(
    build: Callable[..., SAM2UNet], variant: str, size: tuple[int, int]
) -> None:
    """In float64; without biases the filled places would weigh alike."""
    trunk = build(variant).double().encoder
    for module in trunk.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.bias, std=0.5)
    ordered = OrderedTrunk(trunk, size, torch.float64)
    image, other = torch.randn(2, 3, *size).double(), torch.randn(1, 3, 128, 32).double()
    with torch.inference_mode():
        for pixels in (image, other):  # another size goes through the trunk as it is
            for found, wanted in zip(ordered(pixels), trunk(pixels), strict=True):
                torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
                assert found.std() > 0.01


def test_blocks_that_pool_and_attend_to_all_are_those_of_the_trunk() -> None:
    """No published size has one; on this grid the blocks that attend to all see padding too."""
    variant = Variant(
        8, 1, (1, 2, 2, 1), global_blocks=(1, 3, 4), windows=(8, 4, 8, 2), width=8, name="custom"
    )
    torch.manual_seed(0)
    trunk = SAM2UNet(variant).eval().double().encoder
    for module in trunk.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.bias, std=0.5)
    ordered = OrderedTrunk(trunk, (96, 160), torch.float64)
    assert len(ordered.orders[2].padding)
    image = torch.randn(2, 3, 96, 160).double()
    with torch.inference_mode():
        for found, wanted in zip(ordered(image), trunk(image), strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
