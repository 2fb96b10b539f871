"""Clinical scores against counts made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sam2unet_core.errors import DataError
from sam2unet_core.metrics import count_lesions, ratio, score_class, summarise


def _box(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (40, 50)) -> np.ndarray:
    mask = np.zeros(size, bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def test_overlap_scores_by_hand() -> None:
    # mask 4x5 = 20, prediction 4x5 shifted by 2 columns: tp 12, fp 8, fn 8, tn 2000 - 28 = 1972
    found = score_class(_box((10, 12, 14, 17)), _box((10, 10, 14, 15)))
    assert found.dice == pytest.approx(24 / 40)
    assert found.iou == pytest.approx(12 / 28)
    assert found.precision == pytest.approx(12 / 20)
    assert found.recall == pytest.approx(12 / 20)
    assert found.specificity == pytest.approx(1972 / 1980)
    assert (found.truth, found.predicted) == (True, True)


def test_precision_and_recall_are_not_exchanged() -> None:
    found = score_class(_box((0, 0, 10, 10)), _box((0, 0, 10, 5)))  # twice as much as there is
    assert (found.precision, found.recall) == (pytest.approx(0.5), pytest.approx(1.0))


def test_empty_against_empty_is_one_and_its_distances_undefined() -> None:
    found = score_class(_box(), _box())
    assert (found.dice, found.iou, found.specificity) == (1.0, 1.0, 1.0)
    undefined = (found.precision, found.recall, found.hd95, found.assd)
    assert all(math.isnan(value) for value in undefined)
    assert (found.truth, found.predicted) == (False, False)


def test_a_missed_and_a_made_up_lesion_score_zero() -> None:
    missed = score_class(_box(), _box((0, 0, 2, 2)))
    assert (missed.dice, missed.recall) == (0.0, 0.0)
    assert math.isnan(missed.precision)
    made_up = score_class(_box((0, 0, 2, 2)), _box())
    assert (made_up.dice, made_up.precision) == (0.0, 0.0)
    assert math.isnan(made_up.recall)
    assert made_up.specificity == pytest.approx(1996 / 2000)
    assert math.isnan(made_up.hd95)


def test_distances_follow_row_and_column_spacing() -> None:
    truth, prediction = _box((10, 10, 11, 11)), _box((13, 14, 14, 15))  # 3 rows, 4 columns apart
    pixels = score_class(prediction, truth)
    assert (pixels.hd95, pixels.assd) == (pytest.approx(5), pytest.approx(5))
    mm = score_class(prediction, truth, spacing_mm=(2.0, 0.5))  # 6 mm and 2 mm
    assert mm.hd95 == pytest.approx(math.sqrt(40), rel=1e-5)
    assert mm.assd == pytest.approx(math.sqrt(40), rel=1e-5)


def test_distances_agree_with_brute_force_over_the_rims() -> None:
    prediction, truth = _box((8, 9, 30, 33), (2, 40, 6, 46)), _box((10, 10, 31, 30))
    there, back = _rim_distances(prediction, truth), _rim_distances(truth, prediction)
    found = score_class(prediction, truth)
    assert found.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert found.assd == pytest.approx(np.concatenate([there, back]).mean(), rel=1e-5)


def test_volumes_are_scored_with_three_spacings() -> None:
    truth, prediction = np.zeros((6, 8, 8), bool), np.zeros((6, 8, 8), bool)
    truth[1, 4, 4] = prediction[3, 4, 4] = True
    found = score_class(prediction, truth, spacing_mm=(5.0, 1.0, 1.0))
    assert found.hd95 == pytest.approx(10)
    with pytest.raises(DataError, match="expected 3 values"):
        score_class(prediction, truth, spacing_mm=(1.0, 1.0))
    with pytest.raises(DataError, match="for a mask of"):
        score_class(prediction, truth[0])


def test_diagonal_pixels_are_one_lesion() -> None:
    truth = _box((0, 0, 1, 1), (1, 1, 2, 2))
    assert count_lesions(truth, truth).truth == 1


def test_lesions_are_detected_at_the_overlap_asked_for() -> None:
    # masks of 10x10; predictions cover 10x5 (IoU 0.5), 10x4 (IoU 0.4), and nothing real
    truth = _box((0, 0, 10, 10), (0, 20, 10, 30), (20, 0, 30, 10))
    prediction = _box((0, 0, 10, 5), (0, 20, 10, 24), (35, 40, 38, 44))
    half = count_lesions(prediction, truth)
    assert (half.truth, half.predicted, half.detected) == (3, 3, 1)
    assert (half.missed, half.false) == (2, 2)
    assert count_lesions(prediction, truth, min_iou=0.4).detected == 2
    assert count_lesions(prediction, truth, min_iou=0.51).detected == 0


def test_one_prediction_over_two_lesions_detects_one_at_most() -> None:
    truth = _box((0, 0, 4, 4), (0, 6, 4, 10))
    merged = count_lesions(_box((0, 0, 4, 10)), truth, min_iou=0.3)
    assert (merged.detected, merged.missed, merged.false) == (1, 1, 0)
    torn = count_lesions(truth, _box((0, 0, 4, 10)), min_iou=0.3)
    assert (torn.detected, torn.missed, torn.false) == (1, 0, 1)


def test_partners_are_chosen_so_that_most_lesions_have_one() -> None:
    # lesions at 0-9 and 12-15, predictions at 8-13 and 15-16. The best single pair is the second
    # lesion with the first prediction (2/8), which would leave the first lesion (2/14) alone.
    truth = _box((0, 0, 1, 10), (0, 12, 1, 16))
    prediction = _box((0, 8, 1, 14), (0, 15, 1, 17))
    assert count_lesions(prediction, truth, min_iou=0.1).detected == 2


def test_summary_skips_what_is_undefined_and_says_how_many_were_left() -> None:
    found = summarise([0.2, math.nan, 0.4, 0.9], ["a", "b", "c", "d"])
    assert (found.mean, found.median, found.count, found.groups) == (
        pytest.approx(0.5),
        pytest.approx(0.4),
        3,
        3,
    )
    nothing = summarise([math.nan], ["a"])
    assert nothing.count == 0
    assert math.isnan(nothing.mean)
    alone = summarise([0.2, 0.4], ["a", "a"])
    assert alone.mean == pytest.approx(0.3)
    assert math.isnan(alone.low)  # one group says nothing of the next


def test_interval_resamples_groups_and_not_images() -> None:
    # Two groups, each constant: a resample is (a, a), (a, b) or (b, b), so the 95 % interval
    # reaches from one group's value to the other's, however many images there are.
    values = [0.1] * 50 + [0.9] * 50
    grouped = summarise(values, ["a"] * 50 + ["b"] * 50)
    assert (grouped.low, grouped.high) == (pytest.approx(0.1), pytest.approx(0.9))
    single = summarise(values, [str(n) for n in range(100)])
    # binomial: 0.5 +- 1.96 * 0.4 / sqrt(100)
    assert single.low == pytest.approx(0.5 - 0.0784, abs=0.02)
    assert single.high == pytest.approx(0.5 + 0.0784, abs=0.02)
    assert summarise(values, [str(n) for n in range(100)]) == single


def test_rates_pool_their_denominators() -> None:
    found = ratio([1, 0, 3], [1, 0, 4], ["a", "b", "c"])
    assert (found.mean, found.count, found.groups) == (pytest.approx(4 / 5), 5, 2)


def _rim_distances(of: np.ndarray, to: np.ndarray) -> np.ndarray:
    def rim(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        return np.argwhere(mask & ~inner)

    here, there = rim(of).astype(float), rim(to).astype(float)
    return np.sqrt(((here[:, None] - there[None]) ** 2).sum(axis=2)).min(axis=1)
