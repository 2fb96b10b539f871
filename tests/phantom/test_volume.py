"""The drawn volume: the same for the same seed, and its labels lie on its structures."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from sam2unet_core.phantom import draw_volume


def test_the_labels_are_two_structures_of_two_parts_on_brighter_voxels() -> None:
    voxels, labels = draw_volume(3, size=(48, 64, 64))
    assert voxels.shape == labels.shape == (48, 64, 64)
    assert set(np.unique(labels)) == {0, 1, 2}
    _, count = ndimage.label(labels > 0)
    assert count == 2
    assert (labels == 1).sum() > 100 < (labels == 2).sum()
    around = ndimage.binary_dilation(labels > 0, iterations=6) & (labels == 0)
    assert voxels[labels > 0].mean() > voxels[around].mean() + 60
    rows = [np.nonzero(labels == value)[1].mean() for value in (1, 2)]
    assert rows[0] < rows[1]  # the first part is in front


def test_the_same_seed_gives_the_same_volume_and_another_one_another() -> None:
    first, again, other = (draw_volume(seed, size=(16, 24, 24))[0] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
