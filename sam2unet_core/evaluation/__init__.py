"""Evaluate predictions against masks: folders, samples or arrays in, tables out."""

from sam2unet_core.evaluation.measure import (
    Options,
    evaluate_arrays,
    evaluate_folders,
    evaluate_samples,
)
from sam2unet_core.evaluation.published import Comparison, compare_with_paper
from sam2unet_core.evaluation.reading import Case
from sam2unet_core.evaluation.result import Evaluation

__all__ = [
    "Case",
    "Comparison",
    "Evaluation",
    "Options",
    "compare_with_paper",
    "evaluate_arrays",
    "evaluate_folders",
    "evaluate_samples",
]
