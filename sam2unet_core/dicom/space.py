"""Geometry, pixel pitch and clock of DICOM frames, from whichever module states them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom import Dataset

from sam2unet_core.dicom.header import Header, frame_count
from sam2unet_core.errors import GeometryError
from sam2unet_core.geometry import Geometry

Spacing = tuple[float, float]
_CENTIMETRES = 3
_TISSUE = 1
AT_THE_DETECTOR = "at the detector: sizes in the patient are smaller"
OF_THE_SCAN = "of the scanned film or picture"


def stack_geometry(members: Sequence[Header], dataset: Dataset) -> Geometry | None:
    """Return the geometry of single-frame instances; None where they have no place in space.

    Args:
        members: the instances, in order.
        dataset: the header of the first.

    Raises:
        GeometryError: what is stated cannot be: cosines that are no unit vectors, no spacing.
    """
    first = members[0]
    if first.position is None or first.orientation is None:
        return None
    if first.spacing is None:
        raise GeometryError("positions, but no pixel spacing")
    return Geometry(
        positions=np.array([m.position for m in members]),
        row_cosine=np.array(first.orientation[:3]),
        column_cosine=np.array(first.orientation[3:]),
        spacing_mm=(first.spacing[0], first.spacing[1]),
        thickness_mm=_positive(dataset.get("SliceThickness")),
        frame_of_reference_uid=first.frame_of_reference_uid,
    )


def multiframe_geometry(dataset: Dataset) -> Geometry | None:
    """Return the geometry that the functional groups state; None where they state none.

    Raises:
        GeometryError: the frames differ in orientation or spacing, or cannot be as stated.
    """
    count = frame_count(dataset)
    planes = [frame_item(dataset, i, "PlanePositionSequence") for i in range(count)]
    positions = [p and p.get("ImagePositionPatient") for p in planes]
    if not all(p is not None and len(p) == 3 for p in positions):
        return None
    orientations, spacings = set(), set()
    for index in range(count):
        plane = frame_item(dataset, index, "PlaneOrientationSequence")
        measures = frame_item(dataset, index, "PixelMeasuresSequence")
        cosines = plane and plane.get("ImageOrientationPatient")
        pitch = measures and measures.get("PixelSpacing")
        if not cosines or not pitch:
            raise GeometryError("positions, but no orientation or no pixel spacing")
        orientations.add(tuple(round(float(v), 5) for v in cosines))
        spacings.add(tuple(float(v) for v in pitch))
    if len(orientations) > 1 or len(spacings) > 1:
        raise GeometryError("the frames differ in orientation or in pixel spacing")
    measures = frame_item(dataset, 0, "PixelMeasuresSequence")
    cosines = frame_item(dataset, 0, "PlaneOrientationSequence").ImageOrientationPatient
    pitch = spacings.pop()
    return Geometry(
        positions=np.array([[float(v) for v in p] for p in positions]),
        row_cosine=np.array([float(v) for v in cosines[:3]]),
        column_cosine=np.array([float(v) for v in cosines[3:]]),
        spacing_mm=(pitch[0], pitch[1]),
        thickness_mm=_positive(measures.get("SliceThickness")),
        frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID") or "") or None,
    )


def frame_item(dataset: Dataset, index: int, keyword: str) -> Any:
    """Return the item of a functional group for a frame (0-based), its own before the shared one.

    Returns:
        item: a Dataset, or None where there is none.
    """
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    shared = dataset.get("SharedFunctionalGroupsSequence") or ()
    for group in (*frames[index : index + 1], *shared[:1]):
        items = group.get(keyword)
        if items:
            return items[0]
    return None


def pixel_spacing(dataset: Dataset) -> tuple[Spacing | None, str]:
    """Return the (row, column) pixel pitch in mm and what it means; None where none is stated."""
    measures = frame_item(dataset, 0, "PixelMeasuresSequence")
    spacing = _pair(measures.get("PixelSpacing")) if measures else None
    spacing = spacing or _pair(dataset.get("PixelSpacing"))
    detector = _pair(dataset.get("ImagerPixelSpacing"))
    if spacing:
        projected = dataset.get("Modality") in ("CR", "DX", "MG", "XA", "RF", "IO", "PX", "RG")
        calibrated = dataset.get("PixelSpacingCalibrationType")
        uncorrected = projected and not calibrated and detector in (None, spacing)
        return spacing, AT_THE_DETECTOR if uncorrected else ""
    if detector:
        return detector, AT_THE_DETECTOR
    scanned = _pair(dataset.get("NominalScannedPixelSpacing"))
    if scanned:
        return scanned, OF_THE_SCAN
    return _ultrasound_spacing(dataset)


def frame_times(dataset: Dataset) -> tuple[float, ...] | float | None:
    """Return seconds from the first frame, one per frame, or a constant step, or None."""
    vector = dataset.get("FrameTimeVector")
    if vector is not None and not isinstance(vector, str) and len(vector) == frame_count(dataset):
        milliseconds = np.array([float(v) for v in vector])
        milliseconds[0] = 0
        return tuple((np.cumsum(milliseconds) / 1000).tolist())
    step = _positive(dataset.get("FrameTime"))
    if step:
        return step / 1000
    rate = _positive(dataset.get("CineRate")) or _positive(
        dataset.get("RecommendedDisplayFrameRate")
    )
    return 1 / rate if rate else None


def frame_rate(dataset: Dataset) -> float | None:
    """Return frames per second, the mean where the steps differ."""
    times = frame_times(dataset)
    if isinstance(times, tuple):
        return (len(times) - 1) / times[-1] if times[-1] > 0 else None
    return 1 / times if times else None


def _ultrasound_spacing(dataset: Dataset) -> tuple[Spacing | None, str]:
    """Return the pitch of the tissue regions that are calibrated in cm, where they agree."""
    found = set()
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
        if units == (_CENTIMETRES, _CENTIMETRES) and region.get("RegionSpatialFormat") == _TISSUE:
            deltas = (region.get("PhysicalDeltaY"), region.get("PhysicalDeltaX"))
            if all(deltas):
                # 10 mm in a cm; an axis may run backwards
                found.add((round(abs(deltas[0]) * 10, 6), round(abs(deltas[1]) * 10, 6)))
    if len(found) == 1:
        return found.pop(), "inside the ultrasound region"
    return None, "the ultrasound regions differ in scale" if found else ""


def _pair(value: Any) -> Spacing | None:
    if value is None or isinstance(value, str) or len(value) != 2:
        return None
    pair = (float(value[0]), float(value[1]))
    return pair if min(pair) > 0 else None


def _positive(value: Any) -> float | None:
    if value is None or str(value).strip() == "":
        return None
    return float(value) if float(value) > 0 else None
