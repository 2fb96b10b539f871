"""The DICOM files that an image was loaded from, in a folder that the worker may read.

No Qt. A series may lie among others, or be spread: the worker is given a folder with just its
files, as links where the disk can make them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .Errors import InputError


class DicomSource:
    """A private folder with the files of one series; removed by `close`."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="sam2unet-source-"))

    def gather(self, instanceUids: Sequence[str], database: Any) -> Path:
        """Put the files of these instances into the folder: `put` what `locate` finds."""
        return self.put(self.locate(instanceUids, database))

    def locate(self, instanceUids: Sequence[str], database: Any) -> list[Path]:
        """Return the files of these instances, in their order.

        Args:
            instanceUids: SOP instance UIDs.
            database: `slicer.dicomDatabase`, or None.

        Raises:
            InputError: the image did not come from the database, or a file of it is gone.
        """
        found = [database.fileForInstance(uid) for uid in instanceUids] if database else []
        files = [Path(name) for name in dict.fromkeys(found) if name]
        if not files:
            raise InputError(
                "this image was not loaded from Slicer's DICOM database",
                "load its study through the DICOM module, or save the segmentation otherwise",
            )
        missing = [file for file in files if not file.is_file()]
        if missing or len(files) < len(set(instanceUids)):
            raise InputError(
                "files of this image are no longer where the DICOM database has them",
                "import the study into the DICOM database again",
            )
        return files

    def put(self, files: Sequence[Path]) -> Path:
        """Put files into the folder and return it, or the one file; from any thread.

        Takes long only for large files on another disk, which has to copy them.
        """
        self.clear()
        folder = self.root / "series"
        folder.mkdir()
        for number, file in enumerate(files):
            _link(file, folder / f"{number:06d}.dcm")
        return folder / "000000.dcm" if len(files) == 1 else folder

    def clear(self) -> None:
        """Remove what was gathered; the originals stay."""
        shutil.rmtree(self.root / "series", ignore_errors=True)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.root, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copyfile(source, target)
