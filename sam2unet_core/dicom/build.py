"""Build a series from grouped DICOM files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydicom import Dataset

from sam2unet_core.dicom.group import Group, stands_alone
from sam2unet_core.dicom.header import Header, frame_count, frame_count_differs, open_header
from sam2unet_core.dicom.space import (
    AT_THE_DETECTOR,
    frame_rate,
    multiframe_geometry,
    pixel_spacing,
    stack_geometry,
)
from sam2unet_core.dicom.storage import VIDEO_SYNTAXES
from sam2unet_core.dicom.stream import count_frames
from sam2unet_core.errors import GeometryError
from sam2unet_core.geometry import Geometry
from sam2unet_core.types import Caution, FrameSource, Instance, Kind, Series


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
