"""Fit the temperature of a network's probabilities on validation frames.

    python monai_bundle/scripts/calibrate.py WEIGHTS DATASET --datalist D --groups G -o OUT.json

One number divides the logits so that of all pixels given a probability of 0.8, eight in ten are
foreground (Guo et al., ICML 2017). It moves no mask at a threshold of 0.5. The expected calibration
error is the mean distance between probability and share of foreground over 15 bins of probability,
weighted by the pixels in each. The frames are those of the training's own validation part: give the
split that the training had. `pack_weights.py --calibration` puts the temperature into the task.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from sam2unet_core.data import load_split
from sam2unet_core.media.image import read_image, read_mask
from sam2unet_core.network.checkpoint import read_info
from sam2unet_core.segmenter import Segmenter, load_for_inference

BINS = 15
EVERY = 7
"""One pixel in 7 x 7 is used: its neighbours say the same."""
SMALLEST = 1e-6


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
    if task is None or task.activation != "sigmoid":
        parser.error(f"{a.weights}: needs the weights of a run of a sigmoid task")
    segmenter = Segmenter(replace(task, temperature=1.0), load_for_inference(a.weights))
    split = load_split(
        a.dataset, datalist=a.datalist, groups=a.groups, val_fraction=a.val_fraction, seed=a.seed
    )
    probabilities, truth = [], []
    for sample in split.validation:
        found = segmenter.probabilities(read_image(sample.image)[None])[0, :, ::EVERY, ::EVERY]
        labels = read_mask(sample.mask, task.classes)[::EVERY, ::EVERY]
        for channel, item in zip(found, task.classes, strict=True):
            probabilities.append(channel.ravel())
            truth.append((labels == item.value).ravel())
    result = calibrate(np.concatenate(probabilities), np.concatenate(truth))
    result["frames"] = len(split.validation)
    a.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


def calibrate(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> dict[str, float]:
    """Return the temperature of least cross-entropy, and the calibration error before and after.

    Args:
        probability: `(N,)` in 0 to 1, at a temperature of 1.
        truth: `(N,)`.
    """
    clipped = np.clip(probability.astype(np.float64), SMALLEST, 1 - SMALLEST)
    logits = np.log(clipped) - np.log1p(-clipped)

    def cross_entropy(log_temperature: float) -> float:
        signed = np.where(truth, -logits, logits) / np.exp(log_temperature)
        return float(np.logaddexp(0, signed).mean())

    best = minimize_scalar(cross_entropy, bounds=(-2.5, 2.5), method="bounded")
    temperature = round(float(np.exp(best.x)), 3)
    after = 1 / (1 + np.exp(-logits / temperature))
    return {
        "temperature": temperature,
        "ece_before": round(calibration_error(clipped, truth), 4),
        "ece": round(calibration_error(after, truth), 4),
    }


def calibration_error(probability: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return the expected calibration error, 0 to 1."""
    index = np.minimum((probability * BINS).astype(int), BINS - 1)
    foreground = np.bincount(index, weights=truth, minlength=BINS)
    expected = np.bincount(index, weights=probability, minlength=BINS)
    return float(np.abs(foreground - expected).sum() / len(truth))


if __name__ == "__main__":
    main()
