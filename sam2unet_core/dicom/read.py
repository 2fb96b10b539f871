"""Open DICOM studies: find the files, group them into series, decode their frames lazily."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydicom import Dataset

from sam2unet_core.dicom.build import build_series, read_dataset
from sam2unet_core.dicom.files import is_directory_file, referenced_files, relative_to, walk
from sam2unet_core.dicom.group import group
from sam2unet_core.dicom.header import Header, read_header
from sam2unet_core.dicom.numbers import drop_unreadable
from sam2unet_core.dicom.pixels import iterate_frames
from sam2unet_core.dicom.quiet import quiet
from sam2unet_core.dicom.space import frame_times
from sam2unet_core.dicom.storage import VIDEO_SYNTAXES
from sam2unet_core.dicom.stream import iterate_video
from sam2unet_core.errors import InputError, Reason
from sam2unet_core.task import Window
from sam2unet_core.types import Frame, Indices, Instance, OnError, Series, Skipped


def open_study(path: Path | str) -> Iterator[Series]:
    """Yield the series of a file, a folder tree or a DICOMDIR; other files are ignored.

    Raises:
        InputError: `path` does not exist.
    """
    return (found for found in scan(path) if isinstance(found, Series))


def scan(path: Path | str) -> Iterator[Series | Skipped]:
    """Yield the series below `path`, and each file that is skipped with the reason.

    All headers are read before the first series, since a series may be spread over folders.

    Raises:
        InputError: `path` does not exist.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder", reason=Reason.NOT_AN_IMAGE)
    headers: list[Header] = []
    for found in find_headers(path):
        if isinstance(found, Skipped):
            yield found
        else:
            headers.append(found)
    is_index = path.is_file() and is_directory_file(path)
    yield from series_of(headers, path.parent if is_index else path)


def find_headers(path: Path) -> Iterator[Header | Skipped]:
    """Yield the header of every image in a file, a folder tree or a DICOMDIR."""
    is_index = path.is_file() and is_directory_file(path)
    source = path.parent if is_index else path
    tree = walk(path) if path.is_dir() else iter([path])
    for found in referenced_files(path) if is_index else tree:
        if isinstance(found, Skipped):
            yield found
        else:
            yield read_header(found, relative_to(found, source))


def series_of(headers: Iterable[Header], source_path: Path) -> Iterator[Series | Skipped]:
    """Group headers into series; the files of a series that cannot be used are skipped."""
    source = DicomSource()
    members: Sequence[Header]
    for members in _grouped(list(headers)):
        try:
            with quiet():
                series = build_series(list(members), source=source, source_path=source_path)
            yield series
        except Exception as error:  # one bad header must not end the scan
            name = type(error).__name__
            for member in members:
                message = f"{member.path.name}: the header cannot be used ({name})"
                yield Skipped(member.path, Reason.CORRUPT, message, member.relative)


def _grouped(headers: list[Header]) -> list[list[Header]]:
    """Group headers, or return each alone if grouping fails."""
    try:
        return group(headers)
    except Exception:  # one bad header must not end the scan
        return [[header] for header in headers]


class DicomSource:
    """Reads the frames of DICOM instances."""

    def frames(
        self, series: Series, *, indices: Indices, window: Window | None, on_error: OnError | None
    ) -> Iterator[Frame]:
        """Yield frames of the series, decoding one at a time.

        A series has either many single-frame instances, or one multi-frame instance.
        """
        single = len(series.instances) == 1
        positions = range(len(series.instances)) if single or indices is None else indices
        for position in positions:
            instance = series.instances[position]
            try:
                for frame in _decode(instance, window, indices if single else None):
                    place = frame.index if single else position
                    yield replace(frame, index=place, instance=position)
            except InputError as error:
                named = InputError(f"{instance.path.name}: {error}", reason=error.reason)
                if on_error is None:
                    raise named from error
                on_error(position, named)

    def dataset(self, series: Series, instance_index: int) -> Dataset:
        """Return an instance's header without pixels, with all values converted.

        Raises:
            InputError: the file can no longer be read.
        """
        instance = series.instances[instance_index]
        try:
            with quiet():
                dataset = read_dataset(instance.path, frames=instance.frames)
                drop_unreadable(dataset)  # here, since later access would warn
        except OSError as error:
            message = f"{instance.path.name}: cannot be read ({error.strerror})"
            raise InputError(message, reason=Reason.CORRUPT) from error
        return dataset


def _decode(instance: Instance, window: Window | None, indices: Indices) -> Iterator[Frame]:
    """Yield an instance's frames, indexed within it; raise InputError if it is gone or broken."""
    try:
        dataset = read_dataset(instance.path, frames=instance.frames)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", reason=Reason.CORRUPT) from error
    codec = VIDEO_SYNTAXES.get(str(instance.transfer_syntax_uid))
    count = instance.frames
    if codec:
        decoded = iterate_video(instance.path, dataset, codec=codec, frames=count, indices=indices)
    else:
        decoded = iterate_frames(
            instance.path, dataset, frames=count, window=window, indices=indices
        )
    with quiet():
        times = frame_times(dataset) if count > 1 else None
    for index, pixels, cautions in decoded:
        yield Frame(pixels, index, 0, index + 1, _time(times, index), cautions)


def _time(times: Any, index: int) -> float | None:
    if times is None:
        return None
    return float(times[index] if isinstance(times, tuple) else times * index)
