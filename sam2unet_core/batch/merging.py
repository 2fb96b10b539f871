"""Merges the results folders of shards."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from sam2unet_core.batch.folder import (
    FolderLock,
    Line,
    Manifest,
    Output,
    merge_manifests,
    merge_records,
)
from sam2unet_core.batch.summary import absorb_shards, write_summary
from sam2unet_core.batch.units import PRIVATE, PrivateFolder
from sam2unet_core.errors import LockedError, OutputError
from sam2unet_core.files import written_whole

READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def merge(folders: Sequence[Path], out: Path) -> int:
    """Merge the results of shards into one folder, without changing the others.

    Args:
        folders: results folders of the same settings.
        out: the folder to write; it may be one of them.

    Returns:
        The number of manifest lines.

    Raises:
        LockedError: a folder is in use, the settings differ, or two folders have results of
            different files under the same name; nothing is written then.
        OutputError: a folder holds no results, or `out` cannot be written to.
    """
    for folder in folders:
        if not (folder / "run.json").is_file() and not list(folder.glob("run.*-of-*.json")):
            raise OutputError(f"{folder}: no run.json; give folders that `sam2unet segment` wrote")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as locks:
            locks.enter_context(FolderLock(out))
            others = {folder.resolve(): folder for folder in folders}
            others.pop(out.resolve(), None)
            for folder in others.values():
                _hold(folder, locks)
            _check_same_files([out, *others.values()])
            PrivateFolder(out).create()
            merge_records(out, sources=list(folders))
            for folder in folders:
                _copy_results(folder, out)
            lines = merge_manifests(out, sources=folders)
            absorb_shards(out)
            write_summary(out)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError(f"{out}: cannot be written: {reason}") from error
    return len(lines)


def _hold(folder: Path, locks: ExitStack) -> None:
    """Lock a source folder, unless it is read-only."""
    try:
        locks.enter_context(FolderLock(folder))
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise


def _check_same_files(folders: Sequence[Path]) -> None:
    """Raise a `LockedError` if two folders have results of different files under one id or path."""
    lines: dict[str, tuple[Line, str | None]] = {}
    results: dict[str, tuple[Output, Line]] = {}
    for folder in folders:
        sources = PrivateFolder(folder).sources()
        for line in Manifest(folder).lines.values():
            before, source = lines.setdefault(line.id, (line, sources.get(line.id)))
            same_source = source is not None and source == sources.get(line.id)
            clash = not _of_same_file(before, line, same_source=same_source)
            for each in line.outputs:
                known, of = results.setdefault(each.path, (each, line))
                clash |= known.sha256 != each.sha256 and of.key != line.key
            if clash:
                raise LockedError(
                    f"{folder}: holds results of other files under the same names as "
                    f"{folders[0] if len(folders) == 2 else 'another folder'}; merge only shards "
                    "of the same inputs, and give each archive its own folder with -o"
                )


def _of_same_file(one: Line, other: Line, *, same_source: bool) -> bool:
    """Return whether two lines of an id are of the same file, possibly repaired in between."""
    if "failed" in (one.status, other.status):
        return same_source or one.source_sha256 == other.source_sha256
    return (one.source_sha256, one.key) == (other.source_sha256, other.key)


def _copy_results(folder: Path, out: Path) -> None:
    """Link or copy the files of one folder and add its table of sources."""
    if folder.resolve() == out.resolve():
        return
    for line in Manifest(folder).lines.values():
        for each in line.outputs:
            _copy(folder / each.path, out / each.path)
    for path in sorted((folder / PRIVATE / "report").glob("*.json")):
        _copy(path, out / PRIVATE / "report" / path.name)
    PrivateFolder(out).take(folder)


def _copy(source: Path, target: Path) -> None:
    if target.exists() or not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(target) as part:
        try:
            os.link(source, part)
        except OSError:
            shutil.copy2(source, part)
