"""Functional groups of a segmentation: shared and per frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag
from pydicom.valuerep import DSfloat

from sam2unet_core.dicom.modules import derivation
from sam2unet_core.geometry import Geometry
from sam2unet_core.types import Frame, Series

STACK_ID = "1"
UNKNOWN_THICKNESS = 1.0
"""Slice thickness in mm if the source states none; SEG requires a value."""


class FrameItems:
    """Builds the Per-Frame Functional Groups Sequence items of one series.

    Frames with a position in the patient are indexed by it; others, such as endoscopy and cine, by
    Stack ID and their index in the series.

    Args:
        series: the source.
        organization_uid: Dimension Organization UID.
        segments: whether each frame belongs to one segment (all types except label maps).
    """

    def __init__(self, series: Series, *, organization_uid: str, segments: bool) -> None:
        self._series = series
        self._organization = organization_uid
        self._segments = segments
        self._by_position = series.geometry is not None and not series.geometry.repeated
        self._ranks = _ranks(series.geometry) if series.geometry is not None else []

    def dimensions(self) -> tuple[Dataset, list[Dataset]]:
        """Return the Dimension Organization item and the Dimension Index items (C.7.6.17)."""
        organization = Dataset()
        organization.DimensionOrganizationUID = self._organization
        pointers = [("ReferencedSegmentNumber", "SegmentIdentificationSequence")]
        if not self._segments:
            pointers = []
        if self._by_position:
            pointers.append(("ImagePositionPatient", "PlanePositionSequence"))
        else:
            pointers.append(("StackID", "FrameContentSequence"))
            pointers.append(("InStackPositionNumber", "FrameContentSequence"))
        return organization, [self._index(*names) for names in pointers]

    def encoded(self, frame: Frame, segment: int | None) -> bytes:
        """Return the encoded item of one frame; `segment` is None for a label map."""
        return encode_item(self._item(frame, segment))

    def shared(self) -> Dataset:
        """Return the Shared Functional Groups item."""
        item = Dataset()
        geometry = self._series.geometry
        if geometry is None:
            return item
        orientation = Dataset()
        cosines = np.concatenate([geometry.row_cosine, geometry.column_cosine])
        orientation.ImageOrientationPatient = decimals(cosines.tolist())
        item.PlaneOrientationSequence = [orientation]
        measures = Dataset()
        measures.PixelSpacing = decimals(geometry.spacing_mm)
        step = _step(geometry)
        measures.SliceThickness = decimals([geometry.thickness_mm or step or UNKNOWN_THICKNESS])[0]
        if step:
            measures.SpacingBetweenSlices = decimals([step])[0]
        item.PixelMeasuresSequence = [measures]
        return item

    def _index(self, attribute: str, group: str) -> Dataset:
        item = Dataset()
        item.DimensionOrganizationUID = self._organization
        item.DimensionIndexPointer = Tag(attribute)
        item.FunctionalGroupPointer = Tag(group)
        item.DimensionDescriptionLabel = attribute
        return item

    def _item(self, frame: Frame, segment: int | None) -> Dataset:
        item = Dataset()
        content = Dataset()
        indices = [] if segment is None else [segment]
        if self._by_position:
            content.DimensionIndexValues = [*indices, self._ranks[frame.index]]
        else:
            content.StackID = STACK_ID
            content.InStackPositionNumber = frame.index + 1
            content.DimensionIndexValues = [*indices, 1, frame.index + 1]
        item.FrameContentSequence = [content]
        instance = self._series.instances[frame.instance]
        item.DerivationImageSequence = [derivation(instance, frame=frame.number)]
        geometry = self._series.geometry
        if geometry is not None:
            place = Dataset()
            place.ImagePositionPatient = decimals(geometry.positions[frame.index].tolist())
            item.PlanePositionSequence = [place]
        if segment is not None:
            identification = Dataset()
            identification.ReferencedSegmentNumber = segment
            item.SegmentIdentificationSequence = [identification]
        return item


def encode_item(item: Dataset) -> bytes:
    """Return a sequence item with its tag and length, in Explicit VR Little Endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = False
    write_dataset(buffer, item)
    value: bytes = buffer.getvalue()
    return b"\xfe\xff\x00\xe0" + len(value).to_bytes(4, "little") + value


def decimals(values: Sequence[float]) -> list[DSfloat]:
    """Return numbers as decimal strings of at most 16 characters (PS3.5 6.2, DS)."""
    return [DSfloat(float(value) + 0.0, auto_format=True) for value in values]


def _ranks(geometry: Geometry) -> list[int]:
    """Return the 1-based rank of each frame along the normal."""
    order = np.argsort(geometry.offsets_mm, kind="stable")
    ranks = np.empty(len(order), int)
    ranks[order] = np.arange(1, len(order) + 1)
    return [int(rank) for rank in ranks]


def _step(geometry: Geometry) -> float | None:
    """Return the distance between neighbouring frames if it is constant, else None."""
    if len(geometry.positions) < 2 or geometry.uneven:
        return None
    return float(abs(geometry.offsets_mm[-1] - geometry.offsets_mm[0])) / (
        len(geometry.positions) - 1
    )
