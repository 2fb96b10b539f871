"""Training frames with nothing to find: parts beside the lesion, drawn frames and textures."""

import numpy as np
import pytest
import torch

from sam2unet_core.monai_parts import RandDrawnFrame, RandDrawnTexture, RandFreePart
from sam2unet_core.monai_parts.negatives import free_parts
from sam2unet_core.phantom import draw_frame, draw_texture

HEIGHT, WIDTH = 60, 80


def spans(parts):
    return [(r.start, r.stop, c.start, c.stop) for r, c in parts]


@pytest.fixture
def item():
    """A frame whose pixels say where they are (row, column, 7), with two labels."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([rows, columns, np.full_like(rows, 7)]).astype(np.uint8)
    label = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    label[0, 20:30, 30:50] = 1
    label[1, 25:40, 40:60] = 1
    return {"image": torch.from_numpy(image), "label": torch.from_numpy(label), "name": "a.png"}


def test_the_parts_around_a_rectangle_come_largest_first():
    mask = np.zeros((100, 200), bool)
    mask[10:40, 20:60] = True
    # right 100 x 140, below 60 x 200, left 100 x 20, above 10 x 200
    assert spans(free_parts(mask)) == [
        (0, 100, 60, 200),
        (40, 100, 0, 200),
        (0, 10, 0, 200),
        (0, 100, 0, 20),
    ]


def test_parts_narrower_than_asked_for_are_left_out():
    mask = np.zeros((100, 200), bool)
    mask[10:40, 20:60] = True  # shares of a side: right 0.7, below 0.6, left and above 0.1
    assert len(free_parts(mask, least=0.1)) == 4
    assert spans(free_parts(mask, least=0.11)) == [(0, 100, 60, 200), (40, 100, 0, 200)]
    assert spans(free_parts(mask, least=0.65)) == [(0, 100, 60, 200)]
    assert free_parts(mask, least=0.75) == []


def test_a_part_never_has_no_pixels():
    mask = np.zeros((10, 10), bool)
    mask[0:5, 0:10] = True  # touches the top, the left and the right
    assert spans(free_parts(mask)) == [(5, 10, 0, 10)]
    assert free_parts(np.ones((10, 10), bool)) == []


def test_without_a_label_the_whole_frame_is_free():
    assert spans(free_parts(np.zeros((4, 5), bool))) == [(0, 4, 0, 5)]


def test_a_free_part_shows_no_label_and_stays_a_piece_of_the_frame(item):
    cut = RandFreePart(least=0.25)
    cut.set_random_state(seed=0)
    places = set()
    for _ in range(200):
        found = cut(item)
        image, label = found["image"].numpy(), found["label"].numpy()
        assert label.shape == (2, *image.shape[1:])
        assert not label.any()
        top, left = int(image[0, 0, 0]), int(image[1, 0, 0])
        height, width = image.shape[1:]
        assert height >= HEIGHT // 4
        assert width >= WIDTH // 4
        piece = (slice(None), slice(top, top + height), slice(left, left + width))
        np.testing.assert_array_equal(image, item["image"].numpy()[piece])
        assert not item["label"].numpy()[piece].any()
        sides = {"above": top + height <= 20, "below": top >= 40}
        sides |= {"left": left + width <= 30, "right": left >= 60}
        places |= {side for side, holds in sides.items() if holds}
        assert found["name"] == "a.png"
    assert places == {"above", "below", "left", "right"}


def test_the_free_part_leaves_the_frame_it_came_from_as_it_was(item):
    before = {key: item[key].clone() for key in ("image", "label")}
    found = RandFreePart().set_random_state(seed=1)(item)
    found["image"].zero_()
    for key, value in before.items():
        assert torch.equal(item[key], value)


def test_a_frame_without_a_free_part_stays_as_it_is(item):
    item["label"][1] = 1
    assert RandFreePart()(item) is item
    item["label"][1] = 0
    item["label"][1, 15:45, 20:60] = 1  # a quarter of each side is left, and no more than that
    assert RandFreePart(least=0.26)(item) is item


@pytest.mark.parametrize("kind", [RandFreePart, RandDrawnFrame, RandDrawnTexture])
def test_a_seed_repeats_what_is_drawn(kind, item):
    item["label"] = item["label"][:1]

    def drawn(seed):
        transform = kind() if kind is RandFreePart else kind(size=(40, 48))
        transform.set_random_state(seed=seed)
        return [transform(item) for _ in range(5)]

    first, again, other = drawn(3), drawn(3), drawn(4)
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one["image"], two["image"])
        assert torch.equal(one["label"], two["label"])
    same = [
        one["image"].shape == two["image"].shape and torch.equal(one["image"], two["image"])
        for one, two in zip(first, other, strict=True)
    ]
    assert not all(same)


def test_a_drawn_frame_is_the_phantoms_with_its_mask(item):
    transform = RandDrawnFrame(size=(48, 64)).set_random_state(seed=5)
    state = np.random.RandomState(5)
    empty = 0
    for _ in range(20):
        found = transform(item)
        polyps = None if state.random_sample() < 0.5 else 0
        pixels, mask = draw_frame(int(state.randint(2**31)), size=(48, 64), polyps=polyps)
        np.testing.assert_array_equal(found["image"].permute(1, 2, 0).numpy(), pixels)
        np.testing.assert_array_equal(found["label"].numpy(), mask[None])
        assert found["label"].dtype == torch.uint8
        empty += not mask.any()
    assert 5 <= empty < 20  # half of them on purpose, and some by chance


def test_a_drawn_texture_has_an_empty_label_for_each_class(item):
    found = RandDrawnTexture(size=(48, 64)).set_random_state(seed=5)(item)
    seed = int(np.random.RandomState(5).randint(2**31))
    expected = draw_texture(seed, size=(48, 64))
    np.testing.assert_array_equal(found["image"].permute(1, 2, 0).numpy(), expected)
    assert found["label"].shape == (2, 48, 64)
    assert found["label"].dtype == torch.uint8
    assert not found["label"].any()
