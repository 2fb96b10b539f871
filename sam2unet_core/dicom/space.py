"""Geometry, pixel pitch and frame times of DICOM, from whichever module states them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom import Dataset

from sam2unet_core.dicom.header import Header, frame_count
from sam2unet_core.dicom.numbers import Numbers
from sam2unet_core.errors import GeometryError
from sam2unet_core.geometry import Geometry
from sam2unet_core.types import Caution

Spacing = tuple[float, float]
_CENTIMETRES = 3
_TISSUE = 1
AT_THE_DETECTOR = "at the detector: sizes in the patient are smaller"
_OF_THE_SCAN = "of the scanned film or picture"


def stack_geometry(
    members: Sequence[Header], dataset: Dataset, cautions: list[Caution]
) -> Geometry | None:
    """Return the geometry of single-frame instances; None if they have no position in space.

    `dataset` is the header of the first; `cautions` collects what was corrected or ignored.

    Raises:
        GeometryError: invalid cosines, or no spacing.
    """
    first = members[0]
    if first.position is None or first.orientation is None:
        return None
    if first.spacing is None:
        raise GeometryError("there are positions, but no pixel spacing")
    return Geometry(
        positions=np.array([m.position for m in members]),
        row_cosine=np.array(first.orientation[:3]),
        column_cosine=np.array(first.orientation[3:]),
        spacing_mm=(first.spacing[0], first.spacing[1]),
        thickness_mm=Numbers(dataset, cautions).positive("SliceThickness"),
        frame_of_reference_uid=first.frame_of_reference_uid,
    )


def multiframe_geometry(dataset: Dataset, cautions: list[Caution]) -> Geometry | None:
    """Return the geometry of the functional groups; None if they state none.

    `cautions` collects what was corrected or ignored.

    Raises:
        GeometryError: the frames differ in orientation or spacing, or the values are invalid.
    """
    count = frame_count(dataset)
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    if len(groups) < count:  # frames without a group have no position
        count = min(count, len(groups) + 1)
    positions = [_frame_numbers(dataset, i, *_POSITION, cautions) for i in range(count)]
    stated = [position for position in positions if position is not None]
    if not stated:
        return None
    if len(stated) < frame_count(dataset):
        raise GeometryError(
            f"only {len(stated)} of {frame_count(dataset)} frames have a usable position"
        )
    orientations, spacings = set(), set()
    for index in range(count):
        cosines = _frame_numbers(dataset, index, *_ORIENTATION, cautions)
        pitch = _frame_numbers(dataset, index, *_SPACING, cautions)
        if not cosines or not pitch:
            raise GeometryError("there are positions, but no orientation or pixel spacing")
        orientations.add(tuple(round(v, 5) for v in cosines))
        spacings.add(pitch)
    if len(orientations) > 1 or len(spacings) > 1:
        raise GeometryError("the frames differ in orientation or in pixel spacing")
    measures = frame_item(dataset, 0, "PixelMeasuresSequence")
    cosines = _frame_numbers(dataset, 0, *_ORIENTATION, cautions) or ()
    pitch = spacings.pop()
    return Geometry(
        positions=np.array(stated),
        row_cosine=np.array(cosines[:3]),
        column_cosine=np.array(cosines[3:]),
        spacing_mm=(pitch[0], pitch[1]),
        thickness_mm=Numbers(measures or Dataset(), cautions).positive("SliceThickness"),
        frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID") or "") or None,
    )


_POSITION = ("PlanePositionSequence", "ImagePositionPatient", 3)
_ORIENTATION = ("PlaneOrientationSequence", "ImageOrientationPatient", 6)
_SPACING = ("PixelMeasuresSequence", "PixelSpacing", 2)


def _frame_numbers(
    dataset: Dataset,
    index: int,
    sequence: str,
    keyword: str,
    count: int,
    cautions: list[Caution],
) -> tuple[float, ...] | None:
    """Return the numbers in a functional group of a frame, or None."""
    item = frame_item(dataset, index, sequence)
    return None if item is None else Numbers(item, cautions).optional(keyword, count=count)


def frame_item(dataset: Dataset, index: int, keyword: str) -> Any:
    """Return the functional group item of a frame (0-based), else the shared one, else None."""
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    shared = dataset.get("SharedFunctionalGroupsSequence") or ()
    for group in (*frames[index : index + 1], *shared[:1]):
        items = group.get(keyword)
        if items:
            return items[0]
    return None


def pixel_spacing(dataset: Dataset, cautions: list[Caution]) -> tuple[Spacing | None, str]:
    """Return the (row, column) pixel pitch in mm, or None, and its meaning.

    `cautions` collects what was corrected or ignored.
    """
    measures = frame_item(dataset, 0, "PixelMeasuresSequence")
    spacing = _pair(measures, "PixelSpacing", cautions) if measures is not None else None
    spacing = spacing or _pair(dataset, "PixelSpacing", cautions)
    detector = _pair(dataset, "ImagerPixelSpacing", cautions)
    if spacing:
        projected = dataset.get("Modality") in ("CR", "DX", "MG", "XA", "RF", "IO", "PX", "RG")
        calibrated = dataset.get("PixelSpacingCalibrationType")
        uncorrected = projected and not calibrated and detector in (None, spacing)
        return spacing, AT_THE_DETECTOR if uncorrected else ""
    if detector:
        return detector, AT_THE_DETECTOR
    scanned = _pair(dataset, "NominalScannedPixelSpacing", cautions)
    if scanned:
        return scanned, _OF_THE_SCAN
    return _ultrasound_spacing(dataset)


def frame_times(dataset: Dataset) -> tuple[float, ...] | float | None:
    """Return the time of each frame in seconds, or a constant step, or None."""
    numbers = Numbers(dataset)
    vector = numbers.optional("FrameTimeVector", count=frame_count(dataset))
    if vector is not None and frame_count(dataset) > 1:
        milliseconds = np.array(vector)
        milliseconds[0] = 0
        return tuple((np.cumsum(milliseconds) / 1000).tolist())
    step = numbers.positive("FrameTime")
    if step:
        return step / 1000
    rate = numbers.positive("CineRate") or numbers.positive("RecommendedDisplayFrameRate")
    return 1 / rate if rate else None


def frame_rate(dataset: Dataset) -> float | None:
    """Return the mean number of frames per second, or None."""
    times = frame_times(dataset)
    if isinstance(times, tuple):
        return (len(times) - 1) / times[-1] if times[-1] > 0 else None
    return 1 / times if times else None


def _ultrasound_spacing(dataset: Dataset) -> tuple[Spacing | None, str]:
    """Return the pitch of the tissue regions calibrated in cm, if they agree."""
    found = set()
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
        if units == (_CENTIMETRES, _CENTIMETRES) and region.get("RegionSpatialFormat") == _TISSUE:
            numbers = Numbers(region)
            deltas = (numbers.one("PhysicalDeltaY"), numbers.one("PhysicalDeltaX"))
            if deltas[0] and deltas[1]:
                # 10 mm in a cm; an axis may run backwards
                found.add((round(abs(deltas[0]) * 10, 6), round(abs(deltas[1]) * 10, 6)))
    if len(found) == 1:
        return found.pop(), "inside the ultrasound region"
    return None, "the ultrasound regions differ in scale" if found else ""


def _pair(item: Dataset, keyword: str, cautions: list[Caution]) -> Spacing | None:
    pair = Numbers(item, cautions).optional(keyword, count=2)
    return (pair[0], pair[1]) if pair and min(pair) > 0 else None
