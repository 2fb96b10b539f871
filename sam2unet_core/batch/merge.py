"""Results folders of shards brought together in one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from sam2unet_core.batch.lock import FolderLock
from sam2unet_core.batch.manifest import Manifest, merge_manifests
from sam2unet_core.batch.record import merge_records
from sam2unet_core.batch.sources import FOLDER, PrivateFolder
from sam2unet_core.batch.summary import absorb_shards, write_summary
from sam2unet_core.errors import OutputError


def merge(folders: Sequence[Path], out: Path) -> int:
    """Bring the results of shards into one folder; theirs stay as they are.

    Args:
        folders: results folders of the same settings.
        out: the folder to write; it may be one of them.

    Returns:
        the number of manifest lines.

    Raises:
        LockedError: a folder is in use, or the settings differ.
        OutputError: a folder holds no results, or `out` cannot be written to.
    """
    for folder in folders:
        if not (folder / "run.json").is_file() and not list(folder.glob("run.*-of-*.json")):
            raise OutputError(f"{folder}: no run.json; give folders that `segment` wrote")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FolderLock(out):
            PrivateFolder(out).create()
            merge_records(out, sources=list(folders))
            for folder in folders:
                _bring(folder, out)
            lines = merge_manifests(out, sources=folders)
            absorb_shards(out)
            write_summary(out)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError(f"{out}: cannot be written: {reason}") from error
    return len(lines)


def _bring(folder: Path, out: Path) -> None:
    """Link or copy the files of one folder; the tables of sources keep apart by their names."""
    if folder.resolve() == out.resolve():
        return
    for line in Manifest(folder).lines.values():
        for each in line.outputs:
            _copy(folder / each.path, out / each.path)
    for path in sorted((folder / FOLDER / "report").glob("*.json")):
        _copy(path, out / FOLDER / "report" / path.name)
    PrivateFolder(out).take(folder)


def _copy(source: Path, target: Path) -> None:
    if target.exists() or not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.part")
    unfinished.unlink(missing_ok=True)
    try:
        os.link(source, unfinished)
    except OSError:
        shutil.copy2(source, unfinished)
    unfinished.replace(target)
