"""Read from a file what grouping needs, and refuse what is no picture to segment."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian

from sam2unet_core.dicom.files import is_dicom
from sam2unet_core.dicom.quiet import quiet
from sam2unet_core.dicom.storage import VIDEO_SYNTAXES, name_of, never_segmented
from sam2unet_core.errors import InputError
from sam2unet_core.types import Skipped

TOO_MANY_BYTES = 2**31
"""A single frame above this is not decoded."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is remembered of one file while a folder is scanned; a kilobyte or two.

    `position` `(x, y, z)` and `orientation` (row cosine, column cosine) are in LPS, mm; `spacing`
    is (row, column) in mm as the header has it. `stage` tells time points and phases apart.
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


def read_header(path: Path, relative: str) -> Header | Skipped:
    """Read one file's header; a file that is no picture comes back with the reason."""
    try:
        if not is_dicom(path):
            return Skipped(path, "not_dicom", f"{path.name}: not a DICOM file", relative)
        with quiet(), path.open("rb") as stream:
            dataset = open_header(stream)
            check(dataset, stream)
            return _header(dataset, path=path, relative=relative)
    except InputError as error:
        return Skipped(path, error.reason, f"{path.name}: {error}", relative)
    except OSError as error:
        message = f"{path.name}: cannot be read ({error.strerror or type(error).__name__})"
        return Skipped(path, "corrupt", message, relative)
    except Exception as error:  # a broken header breaks in many ways; the rest must go on
        message = f"{path.name}: the DICOM header cannot be read ({type(error).__name__})"
        return Skipped(path, "corrupt", message, relative)


def open_header(stream: BinaryIO) -> Dataset:
    """Read a header and leave the stream where the pixel data begin.

    A file without a file meta group gets one, with the transfer syntax that it was read with.

    Raises:
        InputError: not a DICOM data set.
    """
    with quiet():
        try:
            dataset = dcmread(stream, stop_before_pixels=True, force=True)
        except (InvalidDicomError, EOFError) as error:
            raise InputError("the DICOM header is cut short", reason="truncated") from error
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = (
            "1.2.840.10008.1.2"
            if implicit
            else "1.2.840.10008.1.2.1"
            if little
            else "1.2.840.10008.1.2.2"
        )
    return dataset


def check(dataset: Dataset, stream: BinaryIO) -> None:
    """Raise InputError where a data set is no picture that could be segmented.

    Args:
        dataset: the header.
        stream: the file, at its pixel data, as `open_header` leaves it.
    """
    sop_class = str(dataset.get("SOPClassUID") or "")
    sop_class = sop_class or str(dataset.file_meta.get("MediaStorageSOPClassUID") or "")
    what = never_segmented(sop_class)
    if what:
        raise InputError(f"{what} ({name_of(sop_class)}), never an input", reason="not_an_image")
    if not dataset.get("Rows") or not dataset.get("Columns"):
        name = name_of(sop_class) if sop_class else "DICOM"
        raise InputError(f"{name} without picture elements", reason="not_an_image")
    if not dataset.get("BitsAllocated") or not dataset.get("PhotometricInterpretation"):
        raise InputError("the description of the pixels is incomplete", reason="corrupt")
    one_frame = _frame_bytes(dataset)
    if one_frame > TOO_MANY_BYTES:
        raise InputError(
            f"frames of {one_frame / 2**30:.1f} GiB are too large; the limit is "
            f"{TOO_MANY_BYTES / 2**30:.0f} GiB",
            reason="too_large",
        )
    _check_pixel_data(dataset, stream, expected=one_frame * frame_count(dataset))


def frame_count(dataset: Dataset) -> int:
    """Return Number of Frames, 1 where it is absent or empty."""
    return max(1, int(dataset.get("NumberOfFrames") or 1))


def _frame_bytes(dataset: Dataset) -> int:
    samples = int(dataset.get("SamplesPerPixel") or 1)
    bits = int(dataset.Rows) * int(dataset.Columns) * samples * int(dataset.BitsAllocated)
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        bits = bits * 2 // 3
    return (bits + 7) // 8


def _check_pixel_data(dataset: Dataset, stream: BinaryIO, *, expected: int) -> None:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == DeflatedExplicitVRLittleEndian:
        return  # the stream is not the data set itself
    little = syntax != "1.2.840.10008.1.2.2"
    start = stream.tell()
    head = stream.read(12)
    group, element = struct.unpack("<HH" if little else ">HH", head[:4].ljust(4, b"\0"))
    if (group, element) != (0x7FE0, 0x0010):
        name = name_of(str(dataset.get("SOPClassUID") or "DICOM"))
        raise InputError(f"{name} without pixel data", reason="not_an_image")
    if syntax.is_private:
        raise InputError(
            f"the private transfer syntax {syntax} is not read",
            reason="unsupported_transfer_syntax",
        )
    if syntax in VIDEO_SYNTAXES or syntax.is_encapsulated:
        return
    there = stream.seek(0, os.SEEK_END) - start - (8 if syntax.is_implicit_VR else 12)
    if dataset.BitsAllocated == 1:
        pixels = int(dataset.Rows) * int(dataset.Columns) * frame_count(dataset)
        expected = (pixels + 7) // 8  # frames follow one another without padding
    if there < expected:
        raise InputError(
            f"the pixel data end after {max(0, there)} of {expected} bytes; copy the file again",
            reason="truncated",
        )


def _header(dataset: Dataset, *, path: Path, relative: str) -> Header:
    image_type = [str(v).upper() for v in dataset.get("ImageType") or ()]
    return Header(
        path=path,
        relative=relative,
        sop_class_uid=str(dataset.get("SOPClassUID") or ""),
        sop_instance_uid=_text(dataset, "SOPInstanceUID"),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        frames=frame_count(dataset),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        photometric=str(dataset.PhotometricInterpretation),
        patient=f"{dataset.get('PatientID') or ''}\n{dataset.get('IssuerOfPatientID') or ''}",
        study_uid=_text(dataset, "StudyInstanceUID"),
        series_uid=_text(dataset, "SeriesInstanceUID"),
        modality=_text(dataset, "Modality"),
        number=_whole(dataset.get("InstanceNumber")),
        position=_numbers(dataset.get("ImagePositionPatient"), 3),
        orientation=_numbers(dataset.get("ImageOrientationPatient"), 6),
        spacing=_numbers(dataset.get("PixelSpacing"), 2),
        frame_of_reference_uid=_text(dataset, "FrameOfReferenceUID"),
        localizer="LOCALIZER" in image_type,
        stage=_stage(dataset, image_type),
    )


_STAGES = (
    *("TemporalPositionIdentifier", "TemporalPositionIndex", "TriggerTime", "EchoNumbers"),
    *("EchoTime", "DiffusionBValue", "InversionTime", "FrameReferenceTime"),
    *("NominalPercentageOfCardiacPhase", "AcquisitionNumber", "AcquisitionTime", "ContentTime"),
)


def _stage(dataset: Dataset, image_type: list[str]) -> tuple[tuple[str, object], ...]:
    """Return what can tell apart instances at one place, most telling first."""
    found: list[tuple[str, object]] = [("ImageType", tuple(image_type))]
    for keyword in _STAGES:
        value = dataset.get(keyword)
        found.append((keyword, None if value is None else str(value)))
    return tuple(found)


def _text(dataset: Dataset, keyword: str) -> str | None:
    return str(dataset.get(keyword) or "").strip() or None


def _whole(value: Any) -> int | None:
    return None if value is None or str(value).strip() == "" else int(value)


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Return so many numbers, or None where the element is absent or empty."""
    if value is None or isinstance(value, str) or len(value) != count:
        return None
    return tuple(float(v) for v in value)
