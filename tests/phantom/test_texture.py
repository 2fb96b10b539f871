"""Drawn textures: pictures of nothing, the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest

from sam2unet_core.phantom import draw_texture


@pytest.mark.parametrize("size", [(32, 32), (40, 90), (120, 64)])
def test_a_texture_has_the_size_asked_for(size: tuple[int, int]) -> None:
    pixels = draw_texture(3, size=size)
    assert pixels.shape == (*size, 3)
    assert pixels.dtype == np.uint8


def test_a_seed_and_a_generator_of_it_draw_the_same_picture_and_another_seed_does_not() -> None:
    first = draw_texture(7, size=(48, 64))
    assert np.array_equal(draw_texture(7, size=(48, 64)), first)
    assert np.array_equal(draw_texture(np.random.default_rng(7), size=(48, 64)), first)
    assert not np.array_equal(draw_texture(8, size=(48, 64)), first)


def test_a_generator_goes_on_to_another_picture() -> None:
    rng = np.random.default_rng(7)
    assert not np.array_equal(draw_texture(rng, size=(48, 64)), draw_texture(rng, size=(48, 64)))


def test_half_are_grey_half_end_in_black_and_none_is_flat() -> None:
    drawn = [draw_texture(seed, size=(48, 48)) for seed in range(200)]
    grey = sum(bool((p == p[..., :1]).all()) for p in drawn)
    assert 75 <= grey <= 125  # 100 +- 3.5 standard deviations of 200 draws
    # A disc of radius 0.7 to 1.1 leaves the corners of the square (1.41 away) black.
    corners = sum(not any(p[y, x].any() for y in (0, -1) for x in (0, -1)) for p in drawn)
    assert corners >= 30  # a quarter have the disc: 50 +- 3.3 standard deviations
    assert min(int(p.max()) - int(p.min()) for p in drawn) > 10
