"""Find DICOM files by their content, in folder trees and through a DICOMDIR."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from sam2unet_core.dicom.quiet import quiet
from sam2unet_core.dicom.storage import DIRECTORY
from sam2unet_core.errors import Reason
from sam2unet_core.types import Skipped

_RECORD = re.compile(r"run(\.\d+-of-\d+)?\.json")
_COPIED_SUFFIXES = (".dcm", ".dicom", ".ima")
_MANIFEST = re.compile(r"manifest(\.\d+-of-\d+)?\.jsonl")


def walk(folder: Path, *, out: Path | None = None) -> Iterator[Path | Skipped]:
    """Yield every file below `folder` in the order of names.

    Links are followed, each folder is entered once. Folders that cannot be listed, and what is
    neither file nor folder (pipes, devices), come back as skipped. So do folders of results below
    `folder`, as a whole: what is in them was made here.

    Args:
        folder: where to begin.
        out: a folder to leave alone without a word, since results go there.
    """
    closed: list[OSError] = []
    entered: set[str] = set() if out is None else {os.path.realpath(out)}
    for parent, folders, names in os.walk(folder, onerror=closed.append, followlinks=True):
        real = os.path.realpath(parent)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        if Path(parent) != folder and holds_results(names):
            folders.clear()
            yield _results(Path(parent), folder)
            continue
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            yield path if path.is_file() else _no_file(path, folder)
        yield from (_closed(error, folder) for error in closed)
        closed.clear()
    yield from (_closed(error, folder) for error in closed)


def holds_results(names: Iterable[str]) -> bool:
    """Whether a folder with files of these names is one that a run wrote its results to."""
    found = list(names)
    return any(map(_RECORD.fullmatch, found)) and any(map(_MANIFEST.fullmatch, found))


def relative_to(path: Path, source: Path) -> str:
    """Return the path below the input that was named, with `/`; a file's own name for itself."""
    return path.name if path == source else path.relative_to(source).as_posix()


def is_dicom(path: Path) -> bool:
    """Whether the content is DICOM: the preamble's mark, or a data set that begins at once.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        start = stream.read(132)
    return start[128:132] == b"DICM" or _begins_data_set(start)


def referenced_files(dicomdir: Path) -> Iterator[Path | Skipped]:
    """Yield the files that a DICOMDIR names; those outside its folder or absent are skipped."""
    from pydicom import dcmread  # noqa: PLC0415 - what is no DICOM is told without it

    folder = dicomdir.parent
    try:
        with quiet():
            records = dcmread(dicomdir).get("DirectoryRecordSequence") or ()
            named = [file_id for each in records if (file_id := each.get("ReferencedFileID"))]
    except Exception as error:  # an index breaks in many ways
        message = (
            f"{dicomdir.name}: the DICOMDIR cannot be read ({type(error).__name__}); name its "
        )
        yield Skipped(dicomdir, Reason.CORRUPT, f"{message}folder", dicomdir.name)
        return
    for file_id in named:
        parts = [file_id] if isinstance(file_id, str) else list(file_id)
        relative = "/".join(parts)
        if any(part in ("", ".", "..") or "/" in part or "\\" in part for part in parts):
            message = "the DICOMDIR names a file outside its folder"
            yield Skipped(folder.joinpath(*parts), Reason.CORRUPT, message, relative)
            continue
        path = _as_copied(folder, parts)
        if path is None or not path.is_file():
            message = f"{parts[-1]}: named in the DICOMDIR, but there is no such file"
            yield Skipped(folder.joinpath(*parts), Reason.CORRUPT, message, relative)
        elif not path.resolve().is_relative_to(folder.resolve()):
            message = "the DICOMDIR names a file outside its folder"
            yield Skipped(path, Reason.CORRUPT, message, relative)
        else:
            yield path


def _as_copied(folder: Path, parts: list[str]) -> Path | None:
    """Return the file that a DICOMDIR means; None where there is none.

    Media are copied in lower case, and files get a suffix: both are the same file.
    """
    path = folder
    for part in parts[:-1]:
        found = _named(path, part)
        if found is None:
            return None
        path = found
    return _named(path, parts[-1], suffixes=("", *_COPIED_SUFFIXES))


def _named(folder: Path, name: str, *, suffixes: Sequence[str] = ("",)) -> Path | None:
    """Return what has this name in a folder, else the only thing that differs from it in case."""
    if (folder / name).exists():
        return folder / name
    wanted = {f"{name}{suffix}".casefold() for suffix in suffixes}
    try:
        found = [each for each in folder.iterdir() if each.name.casefold() in wanted]
    except OSError:
        return None
    return found[0] if len(found) == 1 else None


def is_directory_file(path: Path) -> bool:
    """Whether a file is a DICOMDIR, by its content."""
    try:
        with path.open("rb") as stream, quiet():
            return is_dicom(path) and _media_class(stream) == DIRECTORY
    except Exception:  # whatever is wrong is said where the file is read as a picture
        return False


def _media_class(stream: BinaryIO) -> str:
    from pydicom import dcmread  # noqa: PLC0415 - as above

    dataset = dcmread(stream, specific_tags=["SOPClassUID"], stop_before_pixels=True, force=True)
    return str(dataset.file_meta.get("MediaStorageSOPClassUID") or "")


def _no_file(path: Path, folder: Path) -> Skipped:
    what = "a link to nothing" if path.is_symlink() else "neither a file nor a folder"
    return Skipped(path, Reason.NOT_AN_IMAGE, f"{path.name}: {what}", relative_to(path, folder))


def _results(path: Path, folder: Path) -> Skipped:
    message = f"{path.name}: a folder of results (run.json and manifest.jsonl), never an input"
    return Skipped(path, Reason.NOT_AN_IMAGE, message, relative_to(path, folder))


def _closed(error: OSError, folder: Path) -> Skipped:
    path = Path(str(error.filename))
    message = f"{path.name}: the folder cannot be listed ({error.strerror})"
    return Skipped(path, Reason.CORRUPT, message, relative_to(path, folder))


def _begins_data_set(start: bytes) -> bool:
    """Whether the first element is of group 2 or 8, explicit or implicit, either byte order."""
    if len(start) < 8:
        return False
    for order in "<>":
        group, element = struct.unpack(order + "HH", start[:4])
        length = struct.unpack(order + "L", start[4:8])[0]
        named = start[4:6].isalpha() and start[4:6].isupper()
        if group in (2, 8) and element <= 0x70 and (named or length < 1024):
            return True
    return False
