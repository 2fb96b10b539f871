"""Segmentation metrics: overlap, surface distance, lesions, intervals, the paper's protocol."""

from sam2unet_core.metrics.clinical import ClassScores, LesionCounts, count_lesions, score_class
from sam2unet_core.metrics.intervals import Summary, ratio, summarise
from sam2unet_core.metrics.paper import PaperProtocol

__all__ = [
    "ClassScores",
    "LesionCounts",
    "PaperProtocol",
    "Summary",
    "count_lesions",
    "ratio",
    "score_class",
    "summarise",
]
