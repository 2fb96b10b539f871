"""The files of one unit are written to a staging folder, then renamed to their final names."""

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
        """Return the staging path of a file; its folder is created."""
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
        """Return a name that cannot be mistaken for a result."""
        return self._folder / f"{target.path}{PART}"


@dataclass(frozen=True)
class UnitWork:
    """What the files of one unit are written from."""

    unit: Unit
    staging: Staging
    model: Model
    provenance: Provenance
    settings: Settings
