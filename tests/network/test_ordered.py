"""Tokens that lie window by window give what the trunk gives on its grid."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.ordered import Group, OrderedTrunk, window_order


def test_the_order_of_a_grid_that_windows_do_not_divide() -> None:
    """Three rows of five in windows of two by two, by hand."""
    order = window_order(3, 5, 2)
    # fmt: off
    assert order.places.tolist() == [
        0, 1, 5, 6, 2, 3, 7, 8,  # two whole windows
        4, 9,                    # the right edge
        10, 11, 12, 13,          # the lower edge: two windows
        14,                      # the corner
    ]
    # fmt: on
    # Both edges have two tokens to a window, and two places that were filled up.
    assert order.groups == [Group(0, 2, 4, 0), Group(8, 3, 2, 2), Group(14, 1, 1, 3)]
    assert order.places[order.inverse].tolist() == list(range(15))


@pytest.mark.parametrize(
    ("height", "width", "window"), [(22, 22, 16), (8, 8, 4), (3, 3, 8), (24, 16, 16), (6, 40, 7)]
)
def test_what_shares_a_window_lies_together(height: int, width: int, window: int) -> None:
    order = window_order(height, width, window)
    assert order.size == (height, width)
    assert sorted(order.places.tolist()) == list(range(height * width))
    across = -(-width // window)
    for start, windows, real, missing in order.groups:
        assert real + missing == window**2
        for first in range(start, start + windows * real, real):
            place = order.places[first : first + real]
            number = place // width // window * across + place % width // window
            assert (number == number[0]).all()
    last = order.groups[-1]
    assert last.start + last.windows * last.real == height * width


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
