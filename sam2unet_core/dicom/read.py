"""Open DICOM studies: find the files, group them into series, decode their frames lazily.

A DICOM series may mix localisers, orientations, sizes, time points and phases, and may be stored
twice. Each becomes a series of its own, so that no two frames share a position.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from sam2unet_core.dicom.attributes import drop_unreadable
from sam2unet_core.dicom.files import (
    VIDEO_SYNTAXES,
    is_directory_file,
    is_multiframe,
    quiet,
    referenced_files,
    relative_to,
    walk,
)
from sam2unet_core.dicom.header import (
    AT_THE_DETECTOR,
    Header,
    frame_count,
    frame_count_differs,
    frame_rate,
    frame_times,
    multiframe_geometry,
    open_header,
    pixel_spacing,
    read_header,
    stack_geometry,
)
from sam2unet_core.dicom.pixels import iterate_frames
from sam2unet_core.dicom.stream import count_frames, iterate_video
from sam2unet_core.errors import GeometryError, InputError, Reason
from sam2unet_core.geometry import Geometry
from sam2unet_core.task import Window
from sam2unet_core.types import (
    Caution,
    Frame,
    FrameSource,
    Indices,
    Instance,
    Kind,
    OnError,
    Series,
    Skipped,
)


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


def build_series(members: Group, *, source: FrameSource, source_path: Path) -> Series:
    """Build the series of these members, in their order; `source` reads their frames.

    Raises:
        InputError: the first file can no longer be read.
    """
    members = [_counted(member) for member in members]
    first = members[0]
    dataset = read_dataset(first.path, frames=first.frames)
    warnings: list[str] = []
    cautions: list[Caution] = []
    geometry = _geometry(members, dataset, cautions)
    spacing, note = pixel_spacing(dataset, cautions)
    if geometry is not None:
        spacing, note = geometry.spacing_mm, ""
        warnings.extend(geometry.problems)
    if note and (spacing is None or note == AT_THE_DETECTOR):
        warnings.append(f"pixel spacing: {note}")
    return Series(
        kind=_kind(first, geometry),
        instances=tuple(_instance(member, cautions) for member in members),
        source=source,
        source_path=source_path,
        relative=min(member.relative for member in members),
        rows=first.rows,
        columns=first.columns,
        frame_count=sum(member.frames for member in members),
        study_uid=first.study_uid,
        series_uid=first.series_uid,
        modality=first.modality,
        sop_class_uid=first.sop_class_uid or None,
        photometric=_photometric(members),
        description=str(dataset.get("SeriesDescription") or ""),
        frames_per_second=frame_rate(dataset) if stands_alone(first) else None,
        geometry=geometry,
        spacing_mm=spacing,
        spacing_note=note,
        burned_in={"YES": True, "NO": False}.get(str(dataset.get("BurnedInAnnotation"))),
        warnings=tuple(warnings),
    )


def read_dataset(path: Path, *, frames: int | None = None) -> Dataset:
    """Return the header of a file, with its file meta group, without the pixels.

    `frames`, the actual number of frames, replaces Number of Frames.

    Raises:
        InputError: not a DICOM file.
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        dataset = open_header(stream)
    if frames is not None and frames != frame_count(dataset):
        dataset.NumberOfFrames = frames
    return dataset


def _counted(header: Header) -> Header:
    """Return the header of a video with its frames counted; other headers unchanged."""
    codec = VIDEO_SYNTAXES.get(header.transfer_syntax_uid)
    actual = count_frames(header.path, codec, stated=header.frames) if codec else header.frames
    if actual <= header.frames:
        return header  # fewer frames are reported when they are read
    caution = frame_count_differs(header.frames, actual)
    return replace(header, frames=actual, cautions=(*header.cautions, caution))


def _geometry(members: Group, dataset: Dataset, cautions: list[Caution]) -> Geometry | None:
    try:
        if stands_alone(members[0]):
            return multiframe_geometry(dataset, cautions)
        return stack_geometry(members, dataset, cautions)
    except GeometryError as error:
        text = f"the position in space was ignored: {error}"
        cautions.append(Caution("geometry_ignored", text))
        return None


def _kind(first: Header, geometry: Geometry | None) -> Kind:
    if first.transfer_syntax_uid in VIDEO_SYNTAXES:
        return Kind.VIDEO
    if stands_alone(first):
        return Kind.MULTIFRAME
    return Kind.STACK if geometry is None else Kind.VOLUME


def _instance(header: Header, cautions: list[Caution]) -> Instance:
    return Instance(
        path=header.path,
        sop_class_uid=header.sop_class_uid or None,
        sop_instance_uid=header.sop_instance_uid,
        frames=header.frames,
        transfer_syntax_uid=header.transfer_syntax_uid,
        cautions=tuple(dict.fromkeys((*header.cautions, *cautions))),
    )


def _photometric(members: Group) -> str:
    """Return the photometric interpretation; RGB, as decoded, if colour encodings are mixed."""
    found = {member.photometric for member in members}
    return found.pop() if len(found) == 1 else "RGB"


_SAME_DIRECTION = 1e-3
"""Largest difference between direction cosines of one orientation."""
_SAME_POSITION_MM = 0.01

Group = list[Header]


def group(headers: Iterable[Header]) -> list[Group]:
    """Return the series, each in frame order, sorted by their first files.

    A multi-frame instance is a series of its own, and so is a file without Series Instance UID.
    """
    by_key: dict[Hashable, Group] = defaultdict(list)
    for header in headers:
        by_key[_key(header)].append(header)
    found: list[Group] = []
    for members in by_key.values():
        for copy in _copies(members):
            for oriented in _by_orientation(copy):
                found.extend(_by_stage(oriented))
    ordered = [_ordered(members) for members in found]
    return sorted(ordered, key=lambda members: min(h.relative for h in members))


def stands_alone(header: Header) -> bool:
    """Whether the instance is a series by itself: multi-frame or video."""
    return header.transfer_syntax_uid in VIDEO_SYNTAXES or is_multiframe(
        header.sop_class_uid, header.frames
    )


def _key(header: Header) -> Hashable:
    if stands_alone(header) or header.series_uid is None:
        return header.path
    colour = header.photometric
    if colour.startswith("YBR") or colour == "RGB":
        colour = "colour"
    spacing = header.spacing and tuple(round(v, 4) for v in header.spacing)
    return (
        *(header.patient, header.study_uid, header.series_uid, header.sop_class_uid),
        *(header.rows, header.columns, colour, header.modality, header.localizer),
        *(_has_position(header), spacing if _has_position(header) else None),
        header.frame_of_reference_uid if _has_position(header) else None,
    )


def _has_position(header: Header) -> bool:
    return header.position is not None and header.orientation is not None


def _copies(members: Group) -> list[Group]:
    """Separate copies with equal SOP Instance UIDs: by folder, else by order."""
    if _unique(members):
        return [members]
    folders: dict[Hashable, Group] = defaultdict(list)
    for member in members:
        folders[member.path.parent].append(member)
    found: list[Group] = []
    for inside in folders.values():
        found.extend([inside] if _unique(inside) else _occurrences(inside, _uid))
    return found


def _uid(header: Header) -> Hashable:
    return header.sop_instance_uid or header.path


def _unique(members: Group) -> bool:
    return max(Counter(_uid(m) for m in members).values()) == 1


def _by_orientation(members: Group) -> list[Group]:
    """Split by direction cosines, within `_SAME_DIRECTION`."""
    if not _has_position(members[0]):
        return [members]
    found: list[Group] = []
    for member in members:
        for group_ in found:
            difference = np.subtract(member.orientation, group_[0].orientation)  # type: ignore[arg-type]
            if np.abs(difference).max() < _SAME_DIRECTION:
                group_.append(member)
                break
        else:
            found.append([member])
    return found


def _by_stage(members: Group) -> list[Group]:
    """Split instances at equal positions into time points or phases.

    The split uses the first element of `Header.stage`, else the first pair of elements, that gives
    groups without equal positions; otherwise the order of acquisition.
    """
    if not _has_position(members[0]) or not _share_positions(members):
        return [members]
    elements = range(len(members[0].stage))
    for chosen in chain(combinations(elements, 1), combinations(elements, 2)):
        split: dict[Hashable, Group] = defaultdict(list)
        for member in members:
            split[tuple(member.stage[element] for element in chosen)].append(member)
        if len(split) > 1 and not any(_share_positions(part) for part in split.values()):
            return list(split.values())
    in_time = sorted(members, key=lambda h: (_by_number(h), h.relative))
    return _occurrences(in_time, _position)


def _position(header: Header) -> Hashable:
    return tuple(round(v / _SAME_POSITION_MM) for v in header.position or ())


def _share_positions(members: Group) -> bool:
    return max(Counter(_position(m) for m in members).values()) > 1


def _occurrences(members: Group, key: Callable[[Header], Hashable]) -> list[Group]:
    """Return the first instances of every key, then the second, and so on."""
    seen: Counter[Hashable] = Counter()
    found: list[Group] = []
    for member in members:
        count = seen[key(member)]
        seen[key(member)] += 1
        if count == len(found):
            found.append([])
        found[count].append(member)
    return found


def _by_number(header: Header) -> tuple[bool, int]:
    return (header.number is None, header.number or 0)


def _ordered(members: Group) -> Group:
    """Sort along the normal; without positions by instance number, then by file name."""
    if not _has_position(members[0]):
        return sorted(members, key=lambda h: (_by_number(h), h.relative))
    normal = _normal(members[0].orientation or ())
    return sorted(members, key=lambda h: (float(np.dot(h.position or (), normal)), _by_number(h)))


def _normal(orientation: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.cross(orientation[:3], orientation[3:]).astype(np.float64)
