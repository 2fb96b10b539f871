"""What the user asked for: as the module holds it, and as fields of the worker's requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        inputNode: volume or sequence browser.
        what: see `Inputs.extract`.
        task: name of a task of the installed bundle, or None with `bundle`.
        sliceNode, between: see `Inputs.extract`.
        bundle, weights: paths; None for what is installed.
        device: `auto`, `cpu`, `cuda`, ...
        threshold: None for the task's own.
        minimumSize: of an island: in mm2 where the image's spacing is known, else in pixels; 0 for
            the task's own.
        keepLargest: only the largest piece of each picture.
        smoothingPx: sigma in pixels; 0 for none.
        segmentationNode: write into this one; None for a new one.
        force: also where the task was not made for such an input.
        forced: whether that is so, as far as it is known; a DICOM SEG of the result says it.
        surface: closed surfaces, where a whole volume is segmented.
        putFile: puts the video file of a clip where the worker reads it, and returns the path; for
            runs on which no pixel passes through Slicer.
    """

    inputNode: Any
    what: str
    task: str | None = None
    sliceNode: Any = None
    between: tuple[int, int] | None = None
    bundle: str | None = None
    weights: str | None = None
    device: str = "auto"
    runtime: str = "auto"
    threshold: float | None = None
    minimumSize: float = 0.0
    keepLargest: bool = False
    smoothingPx: float = 0.0
    segmentationNode: Any = None
    force: bool = False
    forced: bool = False
    surface: bool = True
    putFile: Callable[[], Path] | None = None

    def load(self) -> dict[str, Any]:
        """Return the fields of the worker's `load`."""
        return {
            "task": self.task,
            "bundle": self.bundle,
            "weights": self.weights,
            "device": self.device,
            "runtime": self.runtime,
        }

    def adjustment(self, pixelArea: float | None) -> dict[str, Any]:
        """Return the fields that turn probabilities into masks.

        Args:
            pixelArea: of the pictures, in mm2; None where it is not known.
        """
        pixels = self.minimumSize / pixelArea if pixelArea else self.minimumSize
        return {
            "threshold": self.threshold,
            "min_area_px": max(1, round(pixels)) if pixels else None,
            "keep_largest": self.keepLargest,
            "smoothing_px": float(self.smoothingPx),
        }
