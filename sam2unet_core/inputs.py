"""Find everything to segment in the files and folders that a user names, whatever the medium.

The DICOM reader is imported with the first DICOM file, because it takes a third of a second.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sam2unet_core.archives import archive_kind, unpack
from sam2unet_core.dicom.files import holds_results, is_dicom, is_directory_file, relative_to, walk
from sam2unet_core.errors import ConfigError, DataError, InputError, Reason
from sam2unet_core.media.image import picture_series
from sam2unet_core.media.kinds import is_companion, medium_of, unknown_medium
from sam2unet_core.media.planes import Plane, reslice
from sam2unet_core.media.video import video_series
from sam2unet_core.media.volume import volume_series, voxel_file
from sam2unet_core.types import Series, Skipped

if TYPE_CHECKING:
    from sam2unet_core.dicom.header import Header

SeriesFilter = Callable[[Series], bool]
OnFound = Callable[[Path, Series | Skipped], None]
"""Called with the path that was named and what was found there."""
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_READERS = {"image": picture_series, "video": video_series, "volume": volume_series}
_FILTERS = ("modality", "description", "uid", "kind")


def find_inputs(
    paths: Sequence[Path],
    *,
    series_filter: SeriesFilter | None = None,
    plane: Plane | None = None,
    out: Path | None = None,
    scratch: Path | None = None,
    on_found: OnFound | None = None,
) -> Iterator[Series | Skipped]:
    """Yield the series to segment, and every other file with the reason why it is skipped.

    DICOM is recognised by content, other media by content and suffix: see `media.kinds`. The plain
    files of a folder come first, sorted by name, then its DICOM series, since the files of a series
    may lie in any subfolder. A file named twice is read once. Results are never read as inputs:
    `out` is ignored, and any other results folder is skipped.

    Args:
        paths: files, folders, DICOMDIRs.
        series_filter: series for which it returns False are dropped.
        plane: reslice volumes to this plane; other series stay as they are.
        out: the results folder; it may lie inside one of the paths.
        scratch: folder to unpack zip, tar and gz paths into; keep it until everything is segmented.
            Without it archives are skipped, as are archives inside folders.
        on_found: called with everything that is found, and the path it was found at.

    Raises:
        InputError: at once, before anything is read: a path does not exist, is neither file nor
            folder, or is `out` or another results folder.
    """
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder", reason=Reason.NOT_AN_IMAGE)
        if not path.is_dir() and not path.is_file():
            message = f"{path}: neither a file nor a folder (a pipe or a device)"
            raise InputError(message, reason=Reason.NOT_AN_IMAGE)
        if path.is_dir():
            _check_not_results(path, out)
    chosen = _Options(series_filter, plane, out, scratch)
    return _find_all(paths, chosen, on_found or (lambda _path, _found: None))


def parse_series_filter(texts: Iterable[str]) -> SeriesFilter:
    """Turn `NAME=PATTERN` texts into a filter; a series must match all of them.

    Names are modality, description, uid (of series or study) and kind. Patterns may contain `*` and
    `?`, commas separate alternatives, and case is ignored. Media other than DICOM have no modality,
    description or UID and never match a filter on those.

    Raises:
        ConfigError: a text has another form.
    """
    wanted: list[tuple[str, list[str]]] = []
    for text in texts:
        name, equals, pattern = text.partition("=")
        if not equals or name.strip() not in _FILTERS or not pattern.strip():
            raise ConfigError(
                f"series filter {text!r}; expected NAME=PATTERN with one of {', '.join(_FILTERS)}, "
                "such as modality=ES or description=*polyp*"
            )
        patterns = [part.strip().lower() for part in pattern.split(",") if part.strip()]
        wanted.append((name.strip(), patterns))

    def matches(series: Series) -> bool:
        return all(_matches(series, name, patterns) for name, patterns in wanted)

    return matches


def _check_not_results(path: Path, out: Path | None) -> None:
    if out is not None and path.resolve() == out.resolve():
        message = f"{path}: is both input and output; give another folder for the results"
        raise InputError(message, reason=Reason.NOT_AN_IMAGE)
    try:
        names = [each.name for each in path.iterdir()]
    except OSError:  # reported when the folder is listed
        return
    if holds_results(names):
        message = f"{path}: holds results (run.json and manifest.jsonl); name their source instead"
        raise InputError(message, reason=Reason.NOT_AN_IMAGE)


@dataclass(frozen=True)
class _Options:
    """Options of `find_inputs`."""

    series_filter: SeriesFilter | None
    plane: Plane | None
    out: Path | None
    scratch: Path | None


def _find_all(
    paths: Sequence[Path], chosen: _Options, on_found: OnFound
) -> Iterator[Series | Skipped]:
    seen: set[Path] = set()
    for number, path in enumerate(paths):
        for found in _find_at(path, seen, chosen, number):
            if isinstance(found, Skipped):
                on_found(path, found)
                yield found
            elif chosen.series_filter is None or chosen.series_filter(found):
                for each in _in_plane(found, chosen.plane):
                    on_found(path, each)
                    yield each


def _find_at(
    path: Path, seen: set[Path], chosen: _Options, number: int
) -> Iterator[Series | Skipped]:
    """Yield what is at a path, including the files of an archive."""
    try:
        packed = path.is_file() and not is_dicom(path) and archive_kind(path) is not None
    except InputError as error:
        yield Skipped(path, Reason.NOT_AN_IMAGE, f"{path.name}: {error}", path.name)
        return
    except OSError:  # reported when the file is read
        packed = False
    if not packed or chosen.scratch is None:
        yield from _find(path, seen, chosen.out)
        return
    folder = chosen.scratch / str(number)
    yield from unpack(path, folder)
    if folder.is_dir():
        yield from (replace(found, archive=path) for found in _find(folder, seen, None))


def _matches(series: Series, name: str, patterns: list[str]) -> bool:
    values: dict[str, tuple[str | None, ...]] = {
        "modality": (series.modality,),
        "description": (series.description,),
        "uid": (series.series_uid, series.study_uid),
        "kind": (series.kind,),
    }
    return any(
        fnmatch.fnmatchcase(value.lower(), pattern)
        for value in values[name]
        if value
        for pattern in patterns
    )


def _find(path: Path, seen: set[Path], out: Path | None) -> Iterator[Series | Skipped]:
    if path.is_file() and is_directory_file(path):
        yield from _find_in_dicomdir(path, seen)
        return
    headers: list[Header] = []
    path = (_voxels_of(path) or path) if path.is_file() else path
    for file in walk(path, out=out) if path.is_dir() else iter([path]):
        if isinstance(file, Skipped):
            yield file
        elif _is_new(file, seen):
            found = _read(file, path)
            if isinstance(found, Series | Skipped):
                yield found
            else:
                headers.append(found)
    if headers:
        from sam2unet_core.dicom.read import series_of  # noqa: PLC0415 - see above

        yield from series_of(headers, path)


def _voxels_of(path: Path) -> Path | None:
    """Return the voxel file if a user named only its header."""
    try:
        return voxel_file(path)
    except OSError:  # reported when the file is read
        return None


def _find_in_dicomdir(dicomdir: Path, seen: set[Path]) -> Iterator[Series | Skipped]:
    from sam2unet_core.dicom.read import find_headers, series_of  # noqa: PLC0415 - see above

    headers = []
    for found in find_headers(dicomdir):
        if isinstance(found, Skipped):
            yield found
        elif _is_new(found.path, seen):
            headers.append(found)
    yield from series_of(headers, dicomdir.parent)


def _is_new(file: Path, seen: set[Path]) -> bool:
    resolved = Path(os.path.realpath(file))  # does not fail on circular links
    if resolved in seen:
        return False
    seen.add(resolved)
    return True


def _read(file: Path, source: Path) -> Header | Series | Skipped:
    """Read a file's header; a broken file never stops the search."""
    try:
        return _read_header(file, source)
    except Exception as error:  # readers fail in many ways on broken files
        message = f"{file.name}: cannot be read ({type(error).__name__})"
        return Skipped(file, Reason.CORRUPT, message, relative_to(file, source))


def _read_header(file: Path, source: Path) -> Header | Series | Skipped:
    relative = relative_to(file, source)
    try:
        has_suffix = file.name.lower().endswith(_DICOM_SUFFIXES)
        if is_dicom(file) or (has_suffix and not is_companion(file)):
            from sam2unet_core.dicom.header import read_header  # noqa: PLC0415 - see above

            return read_header(file, relative)
        medium = medium_of(file)
        message = f"{file.name}: {_skip_message(file)}" if medium is None else ""
    except OSError as error:
        message = f"{file.name}: cannot be read ({error.strerror})"
        return Skipped(file, Reason.CORRUPT, message, relative)
    if medium is not None:
        return _READERS[medium](file, source_path=source, relative=relative)
    return Skipped(file, Reason.NOT_AN_IMAGE, message, relative)


def _skip_message(file: Path) -> str:
    """Return why a file is skipped, in words."""
    try:
        packed = archive_kind(file) is not None
    except InputError as error:
        return str(error)
    return "an archive in a folder: name it as an input" if packed else unknown_medium(file)


def _in_plane(series: Series, plane: Plane | None) -> Iterator[Series | Skipped]:
    if plane is None or series.geometry is None or series.frame_count < 2:
        yield series
        return
    try:
        yield reslice(series, plane)
    except DataError as error:
        for instance in series.instances:
            message = f"{instance.path.name}: {error}"
            relative = relative_to(instance.path, series.source_path)
            reason = getattr(error, "reason", Reason.INCONSISTENT_GEOMETRY)
            yield Skipped(instance.path, reason, message, relative)
