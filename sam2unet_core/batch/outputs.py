"""The files of one unit: written in a folder of their own, then renamed to where they belong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam2unet_core.batch.manifest import Output
from sam2unet_core.batch.settings import Model, Settings
from sam2unet_core.batch.units import Unit
from sam2unet_core.media.image import overlay, write_image, write_mask, write_probability
from sam2unet_core.pipeline import FrameResult
from sam2unet_core.types import file_sha256

if TYPE_CHECKING:
    from sam2unet_core.dicom.uids import Provenance

STAGING = ".part"


@dataclass(frozen=True)
class Target:
    """One file to be.

    Attributes:
        path: below the results folder, with `/`.
        kind: what the manifest calls it.
        instance: index of the instance it belongs to; None where it belongs to all.
    """

    path: str
    kind: str
    instance: int | None = None


class Staging:
    """A folder for the unfinished files of one unit.

    Args:
        out: the results folder.
        name: of the folder; empty or not there.
    """

    def __init__(self, out: Path, name: str) -> None:
        self._out = out
        self._folder = out / name
        self.targets: list[Target] = []

    def create(self) -> None:
        """Make the folder, empty."""
        try:
            self._folder.mkdir(parents=True)
        except FileExistsError:
            self.remove()
            self._folder.mkdir(parents=True)

    def remove(self) -> None:
        """Remove the folder with what is left in it."""
        try:
            self._folder.rmdir()  # nothing is, after the only file of a picture was published
        except OSError:
            shutil.rmtree(self._folder, ignore_errors=True)

    def file(self, target: Target) -> Path:
        """Return where to write a file for now; its folder is made."""
        path = self._unfinished(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.targets.append(target)
        return path

    def publish(self) -> list[tuple[Target, Output]]:
        """Rename every file to its place; return each with its hash."""
        outputs = []
        for target in self.targets:
            unfinished, final = self._unfinished(target), self._out / target.path
            sha256 = file_sha256(unfinished)
            final.parent.mkdir(parents=True, exist_ok=True)
            unfinished.replace(final)
            outputs.append((target, Output(target.path, sha256, target.kind)))
        return outputs

    def _unfinished(self, target: Target) -> Path:
        """Return a name that nobody takes for a result."""
        return self._folder / f"{target.path}{STAGING}"


@dataclass(frozen=True)
class Job:
    """What a sink is given to work with."""

    unit: Unit
    staging: Staging
    model: Model
    provenance: Provenance
    settings: Settings


Sink = Callable[[FrameResult], None]
"""Takes the results of a unit, frame by frame."""


def mask_images(job: Job) -> Sink:
    """Return what writes a palette PNG a frame."""

    def add(result: FrameResult) -> None:
        path = job.staging.file(_frame_target(job, result, "mask.png", "mask"))
        write_mask(path, result.labels, job.model.task.classes)

    return add


def overlay_images(job: Job) -> Sink:
    """Return what writes a PNG of each frame with the classes drawn over it."""

    def add(result: FrameResult) -> None:
        path = job.staging.file(_frame_target(job, result, "overlay.png", "overlay"))
        write_image(path, overlay(result.frame.pixels, result.labels, job.model.task.classes))

    return add


def probability_images(job: Job) -> Sink:
    """Return what writes a 16-bit PNG a frame and class."""

    def add(result: FrameResult) -> None:
        for value, channel in enumerate(result.probabilities, start=1):
            target = _frame_target(job, result, f"prob{value}.png", "probability")
            write_probability(job.staging.file(target), channel)

    return add


def _frame_target(job: Job, result: FrameResult, suffix: str, kind: str) -> Target:
    frame = result.frame
    base = job.unit.frame_base(frame.instance, frame.number)
    return Target(f"{base}.{suffix}", kind, frame.instance)
