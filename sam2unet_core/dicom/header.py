"""Read the header fields that grouping needs, and refuse objects that are not images.

Geometry, pixel pitch and frame times are read from whichever module states them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from sam2unet_core.dicom.attributes import (
    Numbers,
    PixelElement,
    check_pixels,
    complete_pixels,
    pixel_element,
    stored,
)
from sam2unet_core.dicom.codecs import read_frames
from sam2unet_core.dicom.files import (
    VIDEO_SYNTAXES,
    is_dicom,
    is_encapsulated,
    name_of,
    non_image_kind,
    quiet,
)
from sam2unet_core.errors import GeometryError, InputError, Reason
from sam2unet_core.geometry import Geometry
from sam2unet_core.types import Caution, Skipped

MAX_FRAME_BYTES = 2**31
"""Largest frame that is decoded."""
_TRUNCATED = "the file ends before its pixel data; copy it again"
_PREAMBLE = 132
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Header:
    """Fields of one file that are kept while scanning a folder; one or two kilobytes.

    `position` `(x, y, z)` and `orientation` (row cosine, column cosine) are in LPS, mm; `spacing`
    is (row, column) in mm as stored. `stage` distinguishes time points and phases.
    """

    path: Path
    relative: str
    sop_class_uid: str
    sop_instance_uid: str | None
    transfer_syntax_uid: str
    frames: int
    rows: int
    columns: int
    photometric: str
    patient: str
    study_uid: str | None
    series_uid: str | None
    modality: str | None
    number: int | None
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    frame_of_reference_uid: str | None
    localizer: bool
    stage: tuple[tuple[str, object], ...]
    cautions: tuple[Caution, ...] = ()


def read_header(path: Path, relative: str) -> Header | Skipped:
    """Read the header of one file; a file that is not an image is skipped with the reason."""
    try:
        if not is_dicom(path):
            return _not_dicom(path, relative)
        with quiet(), path.open("rb") as stream:
            dataset, cautions = _opened(stream)
            frames = check(dataset, stream)
            return _header(dataset, path=path, relative=relative, frames=frames, cautions=cautions)
    except InputError as error:
        return Skipped(path, error.reason, f"{path.name}: {error}", relative)
    except OSError as error:
        message = f"{path.name}: cannot be read ({error.strerror or type(error).__name__})"
        return Skipped(path, Reason.CORRUPT, message, relative)
    except Exception as error:  # headers are broken in many ways; the scan must continue
        message = f"{path.name}: the DICOM header cannot be read ({type(error).__name__})"
        return Skipped(path, Reason.CORRUPT, message, relative)


def open_header(stream: BinaryIO) -> Dataset:
    """Read a header, complete its pixel attributes, and leave the stream at the pixel data.

    A file without a file meta group gets one, with the transfer syntax detected.

    Raises:
        InputError: not a DICOM data set, or truncated within its header.
    """
    return _opened(stream)[0]


def _opened(stream: BinaryIO) -> tuple[Dataset, tuple[Caution, ...]]:
    """Return the header, and what was assumed."""
    with quiet():
        try:
            dataset = dcmread(stream, stop_before_pixels=True, force=True)
            _check_complete(dataset, stream)
        except InputError:
            raise
        except Exception as error:
            if stream.tell() >= stream.seek(0, os.SEEK_END):
                raise InputError(_TRUNCATED, reason=Reason.TRUNCATED) from error
            raise
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little = dataset.original_encoding
            dataset.file_meta.TransferSyntaxUID = (
                "1.2.840.10008.1.2"
                if implicit
                else "1.2.840.10008.1.2.1"
                if little
                else "1.2.840.10008.1.2.2"
            )
        return dataset, complete_pixels(dataset, pixel_element(dataset, stream))


def _not_dicom(path: Path, relative: str) -> Skipped:
    """Return why a file is not DICOM: truncated in its preamble, or something else."""
    size = path.stat().st_size
    if size < _PREAMBLE and not path.read_bytes().strip(b"\0"):
        message = f"{path.name}: the file ends after {size} bytes; copy it again"
        return Skipped(path, Reason.TRUNCATED, message, relative)
    return Skipped(path, Reason.NOT_DICOM, f"{path.name}: not a DICOM file", relative)


def _check_complete(dataset: Dataset, stream: BinaryIO) -> None:
    """Raise InputError if the last element is truncated, or an image ends before its pixels."""
    position = stream.tell()
    at_end = position >= stream.seek(0, os.SEEK_END)
    stream.seek(position)
    sop_class = str(dataset.file_meta.get("MediaStorageSOPClassUID") or "")
    sop_class = sop_class or str(dataset.get("SOPClassUID") or "")
    deflated = dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
    if not at_end or deflated or non_image_kind(sop_class):
        return
    last = dataset.get_item(max(dataset.keys())) if len(dataset) else None
    length = getattr(last, "length", 0)
    value = getattr(last, "value", None)
    truncated = isinstance(value, bytes) and length != _UNDEFINED and len(value) < length
    if truncated or "Image Storage" in name_of(sop_class) or not len(dataset):
        raise InputError(_TRUNCATED, reason=Reason.TRUNCATED)


def check(dataset: Dataset, stream: BinaryIO) -> int:
    """Return the number of frames in a file; the stream is where `open_header` leaves it.

    Raises:
        InputError: not an image, or one that cannot be decoded.
    """
    sop_class = str(dataset.get("SOPClassUID") or "")
    sop_class = sop_class or str(dataset.file_meta.get("MediaStorageSOPClassUID") or "")
    kind = non_image_kind(sop_class)
    if kind:
        raise InputError(
            f"{kind} ({name_of(sop_class)}), never an input", reason=Reason.NOT_AN_IMAGE
        )
    pixels = pixel_element(dataset, stream)
    name = name_of(sop_class) if sop_class else "DICOM"
    if pixels is None and not dataset.get("Rows"):
        raise InputError(f"{name} without picture elements", reason=Reason.NOT_AN_IMAGE)
    if pixels is None:
        raise InputError(f"{name} without pixel data", reason=Reason.NOT_AN_IMAGE)
    check_pixels(dataset)
    one_frame = _frame_bits(dataset) / 8
    if one_frame > MAX_FRAME_BYTES:
        raise InputError(
            f"frames of {one_frame / 2**30:.1f} GiB are too large; the limit is "
            f"{MAX_FRAME_BYTES / 2**30:.0f} GiB",
            reason=Reason.TOO_LARGE,
        )
    return _count_frames(dataset, stream, pixels)


def frame_count(dataset: Dataset) -> int:
    """Return Number of Frames; 1 if it is missing, empty or invalid (PS3.5 6.2, IS)."""
    stated = Numbers(dataset).whole("NumberOfFrames") or 1
    return stated if 1 <= stated < 2**31 else 1


def frame_count_differs(stated: int, actual: int) -> Caution:
    """Return the caution for a file with more frames than its header states."""
    plural = "" if stated == 1 else "s"
    text = f"the header states {stated} frame{plural}, the file holds {actual}"
    return Caution("frame_count_differs", text)


def _frame_bits(dataset: Dataset) -> int:
    samples = int(dataset.get("SamplesPerPixel") or 1)
    bits = int(dataset.Rows) * int(dataset.Columns) * samples * int(dataset.BitsAllocated)
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        return bits * 2 // 3
    return bits


def _count_frames(dataset: Dataset, stream: BinaryIO, pixels: PixelElement) -> int:
    """Count the frames in the file, which may be more than the header states.

    Raises:
        InputError: fewer bytes than the stated frames need, or a private transfer syntax.
    """
    syntax, stated = dataset.file_meta.TransferSyntaxUID, frame_count(dataset)
    if syntax == DeflatedExplicitVRLittleEndian:  # the stream holds the compressed data set
        stream.seek(0)
        size = len(dcmread(stream, force=True).get("PixelData") or b"")
        pixels = replace(pixels, length=size, available=size)
    if syntax.is_private:
        raise InputError(
            f"the private transfer syntax {syntax} is not supported",
            reason=Reason.UNSUPPORTED_TRANSFER_SYNTAX,
        )
    if syntax in VIDEO_SYNTAXES:
        return stated  # counted with its series, since the stream has to be read
    if is_encapsulated(syntax):
        return max(stated, len(read_frames(stream, dataset)))
    if pixels.encapsulated:
        raise InputError(
            f"the frames are encapsulated, which {name_of(str(syntax))} does not allow; correct "
            "TransferSyntaxUID, or export the file again",
            reason=Reason.CORRUPT,
        )
    one_frame = _frame_bits(dataset)
    expected = (one_frame * stated + 7) // 8  # single bits are packed without padding
    if pixels.available < expected:
        raise InputError(
            f"the pixel data end after {pixels.available} of {expected} bytes; copy the file again",
            reason=Reason.TRUNCATED,
        )
    more, rest = divmod(8 * min(pixels.available, pixels.length) - one_frame * stated, one_frame)
    if one_frame <= 8 or rest > 8:  # padding, or not a whole number of frames
        return stated
    return stated + max(0, more)


def _header(
    dataset: Dataset,
    *,
    path: Path,
    relative: str,
    frames: int,
    cautions: tuple[Caution, ...],
) -> Header:
    numbers = Numbers(dataset, list(cautions))
    stated = numbers.whole("NumberOfFrames")
    image_type = [str(v).upper() for v in stored(dataset, "ImageType")]
    if frames != max(1, stated or 1):
        numbers.cautions.append(frame_count_differs(stated or 1, frames))
    if "MOSAIC" in image_type:
        text = "a Siemens mosaic of many slices, read as one picture; split it first"
        numbers.cautions.append(Caution("mosaic", text))
    return Header(
        path=path,
        relative=relative,
        sop_class_uid=str(dataset.get("SOPClassUID") or ""),
        sop_instance_uid=_text(dataset, "SOPInstanceUID"),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        frames=frames,
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        photometric=str(dataset.PhotometricInterpretation),
        patient=f"{_text(dataset, 'PatientID')}\n{_text(dataset, 'IssuerOfPatientID')}",
        study_uid=_text(dataset, "StudyInstanceUID"),
        series_uid=_text(dataset, "SeriesInstanceUID"),
        modality=_text(dataset, "Modality"),
        number=numbers.whole("InstanceNumber"),
        position=numbers.optional("ImagePositionPatient", count=3),
        orientation=numbers.optional("ImageOrientationPatient", count=6),
        spacing=numbers.optional("PixelSpacing", count=2),
        frame_of_reference_uid=_text(dataset, "FrameOfReferenceUID"),
        localizer="LOCALIZER" in image_type,
        stage=_stage(dataset, image_type),
        cautions=tuple(numbers.cautions),
    )


_STAGES = (
    *("TemporalPositionIdentifier", "TemporalPositionIndex", "TriggerTime", "EchoNumbers"),
    *("EchoTime", "DiffusionBValue", "InversionTime", "FrameReferenceTime"),
    *("NominalPercentageOfCardiacPhase", "AcquisitionNumber", "AcquisitionTime", "ContentTime"),
)


def _stage(dataset: Dataset, image_type: list[str]) -> tuple[tuple[str, object], ...]:
    """Return the elements that may distinguish instances at one position, in priority order."""
    found: list[tuple[str, object]] = [("ImageType", tuple(image_type))]
    for keyword in _STAGES:
        values = stored(dataset, keyword)
        found.append((keyword, "\\".join(map(str, values)) if values else None))
    return tuple(found)


def _text(dataset: Dataset, keyword: str) -> str | None:
    return "\\".join(map(str, stored(dataset, keyword))).strip(" \0") or None


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
