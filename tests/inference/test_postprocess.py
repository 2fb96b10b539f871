from dataclasses import replace

import numpy as np
import pytest
import torch

from sam2unet_core.inference.model import unmeasured
from sam2unet_core.inference.transforms import class_masks, label_map, to_probabilities
from sam2unet_core.task import load_preset


@pytest.fixture
def polyp():
    return load_preset("polyp")


@pytest.fixture
def nerve():
    return unmeasured(load_preset("nerve_ultrasound"))  # its temperature is its weights'


def test_temperature_divides_the_logits(polyp):
    logits = torch.tensor([[[[2.0]]]])
    assert to_probabilities(logits, polyp, (1, 1)).item() == pytest.approx(1 / (1 + np.exp(-2)))
    softer = replace(polyp, temperature=4.0)
    assert to_probabilities(logits, softer, (1, 1)).item() == pytest.approx(1 / (1 + np.exp(-0.5)))


def test_softmax_drops_the_background_channel(nerve):
    logits = torch.log(torch.tensor([0.2, 0.5, 0.3])).view(1, 3, 1, 1)
    found = to_probabilities(logits, nerve, (1, 1))
    torch.testing.assert_close(found.flatten(), torch.tensor([0.5, 0.3]))


def test_a_pixel_at_the_threshold_is_in_the_mask(polyp):
    found = class_masks(np.array([[[0.4999, 0.5, 0.5001]]], np.float32), polyp)
    assert found.tolist() == [[[False, True, True]]]


def test_label_map_takes_the_likeliest_class_among_those_at_or_above_the_threshold(nerve):
    overlapping = replace(nerve, activation="sigmoid", threshold=0.3)
    nerve_probability = [0.9, 0.35, 0.29, 0.1, 0.3]
    vessel_probability = [0.8, 0.40, 0.20, 0.6, 0.3]
    probabilities = np.array([[nerve_probability], [vessel_probability]], np.float32)
    assert label_map(probabilities, overlapping).tolist() == [[1, 2, 0, 2, 1]]


def test_components_below_the_smallest_area_are_dropped_and_diagonals_connect(polyp):
    probabilities = np.zeros((1, 6, 8), np.float32)
    probabilities[0, 0, 0] = probabilities[0, 1, 1] = probabilities[0, 2, 2] = 0.9
    probabilities[0, 4:6, 6:8] = 0.9
    probabilities[0, 0, 7] = 0.9
    (item,) = polyp.classes
    task = replace(polyp, classes=(replace(item, min_area_px=3),))
    found = label_map(probabilities, task)
    assert found.sum() == 7
    assert found[0, 7] == 0
    assert found[1, 1] == 1


def test_a_component_is_kept_where_it_reaches_the_peak_somewhere(polyp):
    """Two components: one of 0.6 alone, one that touches 0.9 at a corner."""
    found = np.zeros((1, 6, 8), np.float32)
    found[0, 0:2, 0:3] = 0.6
    found[0, 3:5, 3:6] = 0.6
    found[0, 5, 6] = 0.9  # diagonal neighbour of the second
    masks = class_masks(found, replace(polyp, peak_threshold=0.9))
    assert masks[0].sum() == 7
    assert masks[0, 3:5, 3:6].all()
    assert masks[0, 5, 6]
    assert class_masks(found, replace(polyp, peak_threshold=0.95)).sum() == 0
    assert class_masks(found, polyp).sum() == 13
    higher = replace(polyp, threshold=0.7, peak_threshold=0.65)  # below the threshold: no rule
    assert class_masks(found, higher).sum() == 1


def test_another_threshold_switches_the_peak_off_and_the_task_s_own_keeps_it(polyp):
    fitted = replace(polyp, peak_threshold=0.9)
    assert fitted.with_threshold(0.3) == replace(polyp, threshold=0.3)
    assert fitted.with_threshold(0.5) == fitted
