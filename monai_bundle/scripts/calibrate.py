"""Fit the temperature of a network's probabilities, and a peak threshold, on validation frames.

    python monai_bundle/scripts/calibrate.py WEIGHTS DATASET --datalist D --groups G -o OUT.json

The temperature divides the logits. With the right one, 80 % of all pixels with a probability of 0.8
are foreground (Guo et al., ICML 2017). At a threshold of 0.5 it changes no mask of a sigmoid task
and masks of a softmax task slightly, so evaluate with it. The expected calibration error is the
mean distance between probability and share of foreground over 15 bins of probability, weighted by
the pixels in each, over all classes except the background.

The peak threshold drops components whose probability reaches it nowhere, to avoid false positives
in lesion-free images. It is the highest of `PEAKS` at which the mean Dice of the validation frames
is within one standard error of the best (Breiman et al., Classification and Regression Trees, 1984,
3.4.3).

The frames are the training's validation frames: give the split of the training.
`pack_weights.py --calibration` writes both values into the task.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from sam2unet_core.data import Sample, load_split
from sam2unet_core.inference.model import read_network
from sam2unet_core.inference.transforms import class_masks
from sam2unet_core.media.image import read_image, read_mask
from sam2unet_core.network.checkpoint import read_info
from sam2unet_core.segmenter import Segmenter

BINS = 15
EVERY = 7
"""Every 7th pixel in each direction is used: neighbouring pixels are alike."""
SMALLEST = 1e-6
PEAKS = tuple(round(0.99 - 0.01 * i, 2) for i in range(40))
"""Of the calibrated probability: 0.99 down to 0.60."""


def main() -> None:
    """Read the arguments, fit, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--datalist", type=Path)
    parser.add_argument("--groups", type=Path)
    parser.add_argument("--val_fraction", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=Path("calibration.json"))
    a = parser.parse_args()
    task = read_info(a.weights).task
    if task is None:
        parser.error(f"{a.weights}: no task in these weights; give the model.safetensors of a run")
    plain = replace(task, temperature=1.0, peak_threshold=0.0)
    segmenter = Segmenter(plain, read_network(a.weights))
    split = load_split(
        a.dataset, datalist=a.datalist, groups=a.groups, val_fraction=a.val_fraction, seed=a.seed
    )
    probabilities, truth = [], []
    for sample in split.validation:
        found = segmenter.probabilities(read_image(sample.image)[None])[0, :, ::EVERY, ::EVERY]
        labels = read_mask(sample.mask, task.classes)[::EVERY, ::EVERY]
        flat = found.reshape(len(found), -1).T  # (pixels, K)
        if task.activation == "softmax":  # one decision among the background and the K classes
            probabilities.append(np.column_stack([1 - flat.sum(axis=1), flat]))
            truth.append(labels.ravel())
            continue
        for channel, item in zip(
            flat.T, task.classes, strict=True
        ):  # one binary decision per class
            probabilities.append(np.column_stack([1 - channel, channel]))
            truth.append((labels == item.value).ravel())
    result = calibrate(np.concatenate(probabilities), np.concatenate(truth))
    result["frames"] = len(split.validation)
    fitted = replace(plain, temperature=result["temperature"])
    segmenter = Segmenter(fitted, read_network(a.weights))
    result |= choose_peak(segmenter, split.validation)
    a.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


def calibrate(probability: NDArray[np.float32], truth: NDArray[np.integer]) -> dict[str, float]:
    """Return the temperature of lowest cross-entropy, and the calibration error before and after.

    Args:
        probability: `(N, C)` in 0 to 1 at a temperature of 1, the background first.
        truth: `(N,)` the right one of the C.
    """
    logits = np.log(np.clip(probability.astype(np.float64), SMALLEST, 1))
    truth = truth.astype(int)

    def scaled(temperature: float) -> NDArray[np.float64]:
        return log_softmax(logits / temperature, axis=1)

    def cross_entropy(log_temperature: float) -> float:
        found = scaled(np.exp(log_temperature))
        return float(-np.take_along_axis(found, truth[:, None], axis=1).mean())

    def error(temperature: float) -> float:
        foreground = range(1, logits.shape[1])
        found = np.exp(scaled(temperature)[:, 1:]).T.ravel()
        return round(calibration_error(found, np.concatenate([truth == k for k in foreground])), 4)

    best = minimize_scalar(cross_entropy, bounds=(-2.5, 2.5), method="bounded")
    temperature = round(float(np.exp(best.x)), 3)
    return {"temperature": temperature, "ece_before": error(1.0), "ece": error(temperature)}


def choose_peak(segmenter: Segmenter, samples: Sequence[Sample]) -> dict[str, float]:
    """Return the peak threshold by the rule above, and the mean Dice without and with it.

    Args:
        segmenter: gives calibrated probabilities.
        samples: frames with masks.
    """
    dice = {peak: list[float]() for peak in (*PEAKS, 0.0)}
    for sample in samples:
        labels = read_mask(sample.mask, segmenter.task.classes)
        found = segmenter.probabilities(read_image(sample.image)[None])[0]
        for peak, scores in dice.items():
            masks = class_masks(found, replace(segmenter.task, peak_threshold=peak))
            for mask, item in zip(masks, segmenter.task.classes, strict=True):
                scores.append(_dice(mask, labels == item.value))
    means = {peak: float(np.mean(scores)) for peak, scores in dice.items()}
    best = max(means, key=lambda peak: means[peak])
    error = np.std(dice[best], ddof=1) / np.sqrt(len(dice[best])) if len(dice[best]) > 1 else 0.0
    chosen = next(peak for peak, mean in means.items() if mean >= means[best] - error)
    return {
        "peak_threshold": chosen,
        "dice_before": round(means[0.0], 4),
        "dice": round(means[chosen], 4),
    }


def _dice(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    total = int(mask.sum() + truth.sum())
    return 1.0 if total == 0 else 2 * int((mask & truth).sum()) / total


def calibration_error(probability: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return the expected calibration error, 0 to 1."""
    index = np.minimum((probability * BINS).astype(int), BINS - 1)
    foreground = np.bincount(index, weights=truth, minlength=BINS)
    expected = np.bincount(index, weights=probability, minlength=BINS)
    return float(np.abs(foreground - expected).sum() / len(truth))


if __name__ == "__main__":
    main()
