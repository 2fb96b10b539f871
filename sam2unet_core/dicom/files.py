"""Files of DICOM studies: which to read, what their UIDs mean, and pydicom's warnings silenced.

Nothing here imports pydicom, which takes a third of a second.
"""

from __future__ import annotations

import logging
import os
import re
import struct
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from sam2unet_core.errors import Reason
from sam2unet_core.types import Skipped

_RECORD = re.compile(r"run(\.\d+-of-\d+)?\.json")
_COPIED_SUFFIXES = (".dcm", ".dicom", ".ima")
_MANIFEST = re.compile(r"manifest(\.\d+-of-\d+)?\.jsonl")


def walk(folder: Path, *, out: Path | None = None) -> Iterator[Path | Skipped]:
    """Yield every file below `folder`, sorted by name.

    Links are followed, and each folder is entered once. Folders that cannot be listed, special
    files (pipes, devices) and results folders are returned as skipped.

    Args:
        folder: the root.
        out: the results folder, which is silently ignored.
    """
    errors: list[OSError] = []
    entered: set[str] = set() if out is None else {os.path.realpath(out)}
    for parent, folders, names in os.walk(folder, onerror=errors.append, followlinks=True):
        real = os.path.realpath(parent)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        if Path(parent) != folder and holds_results(names):
            folders.clear()
            yield _results_folder(Path(parent), folder)
            continue
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            yield path if path.is_file() else _special_file(path, folder)
        yield from (_unlistable(error, folder) for error in errors)
        errors.clear()
    yield from (_unlistable(error, folder) for error in errors)


def holds_results(names: Iterable[str]) -> bool:
    """Whether a folder with files of these names is a results folder."""
    found = list(names)
    return any(map(_RECORD.fullmatch, found)) and any(map(_MANIFEST.fullmatch, found))


def relative_to(path: Path, source: Path) -> str:
    """Return the path relative to the named input, with `/`; the name if it is the input."""
    return path.name if path == source else path.relative_to(source).as_posix()


def is_dicom(path: Path) -> bool:
    """Whether the content is DICOM: a preamble, or a data set without one.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        start = stream.read(132)
    return start[128:132] == b"DICM" or _starts_data_set(start)


def referenced_files(dicomdir: Path) -> Iterator[Path | Skipped]:
    """Yield the files that a DICOMDIR references; skip missing and outside ones."""
    from pydicom import dcmread  # noqa: PLC0415 - not needed for other files

    folder = dicomdir.parent
    try:
        with quiet():
            records = dcmread(dicomdir).get("DirectoryRecordSequence") or ()
            named = [file_id for each in records if (file_id := each.get("ReferencedFileID"))]
    except Exception as error:  # an index breaks in many ways
        why = type(error).__name__
        message = f"{dicomdir.name}: the DICOMDIR cannot be read ({why}); name its folder"
        yield Skipped(dicomdir, Reason.CORRUPT, message, dicomdir.name)
        return
    for file_id in named:
        parts = [file_id] if isinstance(file_id, str) else list(file_id)
        relative = "/".join(parts)
        if any(part in ("", ".", "..") or "/" in part or "\\" in part for part in parts):
            message = "the DICOMDIR names a file outside its folder"
            yield Skipped(folder.joinpath(*parts), Reason.CORRUPT, message, relative)
            continue
        path = _find_referenced(folder, parts)
        if path is None or not path.is_file():
            message = f"{parts[-1]}: referenced by the DICOMDIR, but there is no such file"
            yield Skipped(folder.joinpath(*parts), Reason.CORRUPT, message, relative)
        elif not path.resolve().is_relative_to(folder.resolve()):
            message = "the DICOMDIR names a file outside its folder"
            yield Skipped(path, Reason.CORRUPT, message, relative)
        else:
            yield path


def _find_referenced(folder: Path, parts: list[str]) -> Path | None:
    """Return the file that a DICOMDIR references, also if copying changed case or suffix."""
    path = folder
    for part in parts[:-1]:
        found = _find_name(path, part)
        if found is None:
            return None
        path = found
    return _find_name(path, parts[-1], suffixes=("", *_COPIED_SUFFIXES))


def _find_name(folder: Path, name: str, *, suffixes: Sequence[str] = ("",)) -> Path | None:
    """Return the entry with this name, else the only one that differs just in case."""
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
    except Exception:  # reported when the file is read as a picture
        return False


def _media_class(stream: BinaryIO) -> str:
    from pydicom import dcmread  # noqa: PLC0415 - as above

    dataset = dcmread(stream, specific_tags=["SOPClassUID"], stop_before_pixels=True, force=True)
    return str(dataset.file_meta.get("MediaStorageSOPClassUID") or "")


def _special_file(path: Path, folder: Path) -> Skipped:
    what = "a broken link" if path.is_symlink() else "neither a file nor a folder"
    return Skipped(path, Reason.NOT_AN_IMAGE, f"{path.name}: {what}", relative_to(path, folder))


def _results_folder(path: Path, folder: Path) -> Skipped:
    message = f"{path.name}: a results folder (run.json and manifest.jsonl), never an input"
    return Skipped(path, Reason.NOT_AN_IMAGE, message, relative_to(path, folder))


def _unlistable(error: OSError, folder: Path) -> Skipped:
    path = Path(str(error.filename))
    message = f"{path.name}: the folder cannot be listed ({error.strerror})"
    return Skipped(path, Reason.CORRUPT, message, relative_to(path, folder))


def _starts_data_set(start: bytes) -> bool:
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


VIDEO_SYNTAXES: dict[str, str] = {
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in ("100", "100.1", "101", "101.1")), "mpeg"),
    **dict.fromkeys(
        (f"1.2.840.10008.1.2.4.{n}{part}" for n in range(102, 107) for part in ("", ".1")), "h264"
    ),
    **dict.fromkeys(("1.2.840.10008.1.2.4.107", "1.2.840.10008.1.2.4.108"), "hevc"),
}
"""Video transfer syntaxes, and the codec of their elementary stream."""

_NATIVE = {
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
}
"""Implicit and explicit little endian, deflated, big endian."""

DIRECTORY = "1.2.840.10008.1.3.10"
"""Media Storage Directory: a DICOMDIR."""

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NON_IMAGES = {
    _STORAGE + "66": "raw data",
    _STORAGE + "77.1.6": "a whole-slide image",
    _STORAGE + "30": "a parametric map",
    _STORAGE + "481": "a radiotherapy object",
    _STORAGE + "88": "a structured report",
    _STORAGE + "104": "an encapsulated document",
    _STORAGE + "11": "a presentation state",
    _STORAGE + "9": "a waveform",
    _STORAGE + "91": "microscopy annotations",
    _STORAGE + "68": "a surface",
    _STORAGE + "67": "a mapping between units",
    _STORAGE + "66.4": "a segmentation",
    _STORAGE + "66.5": "a segmentation",
    _STORAGE + "66.7": "a segmentation",
    "1.2.840.10008.5.1.4.39": "a colour palette",
    "1.2.840.10008.5.1.4.38": "a hanging protocol",
    DIRECTORY: "a DICOMDIR, an index: the files it names are read by themselves",
}
"""SOP classes, or prefixes of them, that are not images to segment."""

_ALWAYS_MULTIFRAME = {
    _STORAGE + suffix
    for suffix in (
        *("2.1", "2.2", "4.1", "4.3", "4.4", "3.1", "6.2", "6.3", "128.1", "130", "12.1.1"),
        *("12.2.1", "13.1.1", "13.1.3", "77.1.5.4", "7.1", "7.2", "7.3", "7.4"),
        *("77.1.1.1", "77.1.2.1", "77.1.4.1"),
    )
}
"""Enhanced, cine, multi-frame secondary capture and video classes."""


def non_image_kind(sop_class_uid: str) -> str | None:
    """Return the kind of object of a SOP class that is not an image, else None."""
    parts = sop_class_uid.split(".")
    for count in range(len(parts), 5, -1):
        found = _NON_IMAGES.get(".".join(parts[:count]))
        if found:
            return found
    return None


def is_multiframe(sop_class_uid: str, frames: int) -> bool:
    """Whether an instance is multi-frame, by its class or number of frames."""
    return frames > 1 or sop_class_uid in _ALWAYS_MULTIFRAME


def is_encapsulated(transfer_syntax_uid: str) -> bool:
    """Whether pixel data of this transfer syntax are encapsulated."""
    return transfer_syntax_uid not in _NATIVE


def name_of(uid: str) -> str:
    """Return the name of a UID in the standard, else the UID."""
    from pydicom.uid import UID  # noqa: PLC0415 - the tables above are used without pydicom

    return str(UID(uid).name)


_T = TypeVar("_T")
_lock = threading.Lock()
_silences: list[warnings.catch_warnings[None]] = []
_previous_modes: list[int] = []
_log = logging.getLogger("pydicom")
_users = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and pydicom's validation while any thread is inside.

    pydicom is not imported here. If it is imported later, the next block that is entered turns off
    its validation; all code that reads headers enters one.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def quietly(items: Iterator[_T]) -> Iterator[_T]:
    """Yield from `items`, quiet while an item is produced but not while it is used."""
    end = object()
    while True:
        with quiet():
            item = next(items, end)
        if item is end:
            return
        yield item  # type: ignore[misc]


def _enter() -> None:
    global _users  # noqa: PLW0603 - warning filters belong to the process
    with _lock:
        _users += 1
        if _users == 1:
            silence = warnings.catch_warnings()
            silence.__enter__()
            _silences.append(silence)
            warnings.simplefilter("ignore")
            _log.disabled = True
        if not _previous_modes and "pydicom" in sys.modules:
            from pydicom import config  # noqa: PLC0415 - already imported

            _previous_modes.append(config.settings.reading_validation_mode)
            config.settings.reading_validation_mode = config.IGNORE


def _leave() -> None:
    global _users  # noqa: PLW0603
    with _lock:
        _users -= 1
        if _users == 0:
            if _previous_modes:
                from pydicom import config  # noqa: PLC0415 - already imported

                config.settings.reading_validation_mode = _previous_modes.pop()
            _log.disabled = False
            _silences.pop().__exit__(None, None, None)
