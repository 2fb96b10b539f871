"""Output files of one unit: written to a staging folder, then renamed to their final paths."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam2unet_core.batch.manifest import Output
from sam2unet_core.files import PART, file_sha256

if TYPE_CHECKING:
    from sam2unet_core.batch.settings import Settings
    from sam2unet_core.batch.units import Unit
    from sam2unet_core.dicom.uids import Provenance
    from sam2unet_core.inference.model import Model


@dataclass(frozen=True)
class Target:
    """A file to write.

    Attributes:
        path: below the results folder, with `/`.
        kind: its kind in the manifest.
        instance: index of the instance it belongs to; None if it belongs to all.
    """

    path: str
    kind: str
    instance: int | None = None


class Staging:
    """A folder for the unfinished files of one unit.

    Args:
        out: the results folder.
        name: name of the folder.
    """

    def __init__(self, out: Path, name: str) -> None:
        self._out = out
        self._folder = out / name
        self.targets: list[Target] = []

    def create(self) -> None:
        """Create the folder, or empty an existing one."""
        try:
            self._folder.mkdir(parents=True)
        except FileExistsError:
            self.remove()
            self._folder.mkdir(parents=True)

    def remove(self) -> None:
        """Remove the folder and its content."""
        try:
            self._folder.rmdir()  # the usual case: empty, because all files were published
        except OSError:
            shutil.rmtree(self._folder, ignore_errors=True)

    def file(self, target: Target) -> Path:
        """Create the folder of a file and return its staging path."""
        path = self._unfinished(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.targets.append(target)
        return path

    def publish(self) -> list[tuple[Target, Output]]:
        """Rename all files to their final paths; return them with their hashes."""
        outputs = []
        for target in self.targets:
            unfinished, final = self._unfinished(target), self._out / target.path
            sha256 = file_sha256(unfinished)
            final.parent.mkdir(parents=True, exist_ok=True)
            unfinished.replace(final)
            outputs.append((target, Output(target.path, sha256, target.kind)))
        return outputs

    def _unfinished(self, target: Target) -> Path:
        """Return the staging path, whose suffix tells it from a result."""
        return self._folder / f"{target.path}{PART}"


@dataclass(frozen=True)
class UnitWork:
    """A unit and what is needed to write its files."""

    unit: Unit
    staging: Staging
    model: Model
    provenance: Provenance
    settings: Settings
