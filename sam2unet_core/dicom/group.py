"""Group DICOM files into series and order them.

A DICOM series may mix localisers, orientations, sizes, time points and phases, and may be stored
twice. Each becomes a series of its own, so that no two frames share a position.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import chain, combinations

import numpy as np

from sam2unet_core.dicom.header import Header
from sam2unet_core.dicom.storage import VIDEO_SYNTAXES, is_multiframe

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
