"""Read from a file what grouping needs, and refuse what is no picture to segment."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from sam2unet_core.dicom.attributes import (
    PixelElement,
    check_pixels,
    complete_pixels,
    pixel_element,
)
from sam2unet_core.dicom.encapsulated import read_frames
from sam2unet_core.dicom.files import is_dicom
from sam2unet_core.dicom.numbers import Numbers, stored
from sam2unet_core.dicom.quiet import quiet
from sam2unet_core.dicom.storage import (
    VIDEO_SYNTAXES,
    is_encapsulated,
    name_of,
    never_segmented,
)
from sam2unet_core.errors import InputError, Reason
from sam2unet_core.types import Caution, Skipped

TOO_MANY_BYTES = 2**31
"""A single frame above this is not decoded."""
_CUT = "the file ends before its pixel data; copy it again"
_PREAMBLE = 132
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Header:
    """What is remembered of one file while a folder is scanned; a kilobyte or two.

    `position` `(x, y, z)` and `orientation` (row cosine, column cosine) are in LPS, mm; `spacing`
    is (row, column) in mm as the header has it. `stage` tells time points and phases apart,
    `cautions` what had to be assumed.
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
    """Read one file's header; a file that is no picture comes back with the reason."""
    try:
        if not is_dicom(path):
            return _no_dicom(path, relative)
        with quiet(), path.open("rb") as stream:
            dataset, cautions = _opened(stream)
            frames = check(dataset, stream)
            return _header(dataset, path=path, relative=relative, frames=frames, cautions=cautions)
    except InputError as error:
        return Skipped(path, error.reason, f"{path.name}: {error}", relative)
    except OSError as error:
        message = f"{path.name}: cannot be read ({error.strerror or type(error).__name__})"
        return Skipped(path, Reason.CORRUPT, message, relative)
    except Exception as error:  # a broken header breaks in many ways; the rest must go on
        message = f"{path.name}: the DICOM header cannot be read ({type(error).__name__})"
        return Skipped(path, Reason.CORRUPT, message, relative)


def open_header(stream: BinaryIO) -> Dataset:
    """Read a header, complete its description of the pixels, leave the stream where they begin.

    A file without a file meta group gets one, with the transfer syntax that it was read with.

    Raises:
        InputError: not a DICOM data set, or cut off within its header.
    """
    return _opened(stream)[0]


def _opened(stream: BinaryIO) -> tuple[Dataset, tuple[Caution, ...]]:
    """Return the header, and what of it had to be assumed."""
    with quiet():
        try:
            dataset = dcmread(stream, stop_before_pixels=True, force=True)
            _check_whole(dataset, stream)
        except InputError:
            raise
        except Exception as error:
            if stream.tell() >= stream.seek(0, os.SEEK_END):
                raise InputError(_CUT, reason=Reason.TRUNCATED) from error
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


def _no_dicom(path: Path, relative: str) -> Skipped:
    """Tell a file that ends before its header from one that is something else."""
    size = path.stat().st_size
    if size < _PREAMBLE and not path.read_bytes().strip(b"\0"):
        message = f"{path.name}: the file ends after {size} bytes; copy it again"
        return Skipped(path, Reason.TRUNCATED, message, relative)
    return Skipped(path, Reason.NOT_DICOM, f"{path.name}: not a DICOM file", relative)


def _check_whole(dataset: Dataset, stream: BinaryIO) -> None:
    """Refuse a file that ends within its header.

    Raises:
        InputError: the last element is cut, or a file of pictures ends before its pixel data.
    """
    place = stream.tell()
    at_end = place >= stream.seek(0, os.SEEK_END)
    stream.seek(place)
    sop_class = str(dataset.file_meta.get("MediaStorageSOPClassUID") or "")
    sop_class = sop_class or str(dataset.get("SOPClassUID") or "")
    deflated = dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
    if not at_end or deflated or never_segmented(sop_class):
        return
    last = dataset.get_item(max(dataset.keys())) if len(dataset) else None
    length = getattr(last, "length", 0)
    value = getattr(last, "value", None)
    cut = isinstance(value, bytes) and length != _UNDEFINED and len(value) < length
    if cut or "Image Storage" in name_of(sop_class) or not len(dataset):
        raise InputError(_CUT, reason=Reason.TRUNCATED)


def check(dataset: Dataset, stream: BinaryIO) -> int:
    """Return how many frames a data set holds; raise where it is no picture to segment.

    Args:
        dataset: the header.
        stream: the file, at its pixel data, as `open_header` leaves it.

    Raises:
        InputError: the reason is in the manifest's list.
    """
    sop_class = str(dataset.get("SOPClassUID") or "")
    sop_class = sop_class or str(dataset.file_meta.get("MediaStorageSOPClassUID") or "")
    what = never_segmented(sop_class)
    if what:
        raise InputError(
            f"{what} ({name_of(sop_class)}), never an input", reason=Reason.NOT_AN_IMAGE
        )
    pixels = pixel_element(dataset, stream)
    name = name_of(sop_class) if sop_class else "DICOM"
    if pixels is None and not dataset.get("Rows"):
        raise InputError(f"{name} without picture elements", reason=Reason.NOT_AN_IMAGE)
    if pixels is None:
        raise InputError(f"{name} without pixel data", reason=Reason.NOT_AN_IMAGE)
    check_pixels(dataset)
    one_frame = _frame_bits(dataset) / 8
    if one_frame > TOO_MANY_BYTES:
        raise InputError(
            f"frames of {one_frame / 2**30:.1f} GiB are too large; the limit is "
            f"{TOO_MANY_BYTES / 2**30:.0f} GiB",
            reason=Reason.TOO_LARGE,
        )
    return _frames_there(dataset, stream, pixels)


def frame_count(dataset: Dataset) -> int:
    """Return Number of Frames; 1 where it is absent, empty or none that can be (PS3.5 6.2, IS)."""
    stated = Numbers(dataset).whole("NumberOfFrames") or 1
    return stated if 1 <= stated < 2**31 else 1


def frame_count_differs(announced: int, there: int) -> Caution:
    """Return the caution of a file that holds more frames than its header says."""
    plural = "" if announced == 1 else "s"
    text = f"the header announces {announced} frame{plural}, the file holds {there}"
    return Caution("frame_count_differs", text)


def _frame_bits(dataset: Dataset) -> int:
    samples = int(dataset.get("SamplesPerPixel") or 1)
    bits = int(dataset.Rows) * int(dataset.Columns) * samples * int(dataset.BitsAllocated)
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        return bits * 2 // 3
    return bits


def _frames_there(dataset: Dataset, stream: BinaryIO, pixels: PixelElement) -> int:
    """Count the frames in the file, which may be more than it announces.

    Raises:
        InputError: there are fewer bytes than the announced frames take, or a private syntax.
    """
    syntax, announced = dataset.file_meta.TransferSyntaxUID, frame_count(dataset)
    if syntax == DeflatedExplicitVRLittleEndian:  # the stream is not the data set itself
        stream.seek(0)
        size = len(dcmread(stream, force=True).get("PixelData") or b"")
        pixels = replace(pixels, length=size, there=size)
    if syntax.is_private:
        raise InputError(
            f"the private transfer syntax {syntax} is not read",
            reason=Reason.UNSUPPORTED_TRANSFER_SYNTAX,
        )
    if syntax in VIDEO_SYNTAXES:
        return announced  # counted with its series: the stream has to be read for it
    if is_encapsulated(syntax):
        return max(announced, len(read_frames(stream, dataset)))
    if pixels.items:
        raise InputError(
            f"the frames are encapsulated, which {name_of(str(syntax))} does not allow; correct "
            "TransferSyntaxUID, or export the file again",
            reason=Reason.CORRUPT,
        )
    one_frame = _frame_bits(dataset)
    expected = (one_frame * announced + 7) // 8  # bits follow one another without padding
    if pixels.there < expected:
        raise InputError(
            f"the pixel data end after {pixels.there} of {expected} bytes; copy the file again",
            reason=Reason.TRUNCATED,
        )
    more, rest = divmod(8 * min(pixels.there, pixels.length) - one_frame * announced, one_frame)
    if one_frame <= 8 or rest > 8:  # padding, or what is no whole number of frames
        return announced
    return announced + max(0, more)


def _header(
    dataset: Dataset,
    *,
    path: Path,
    relative: str,
    frames: int,
    cautions: tuple[Caution, ...],
) -> Header:
    numbers = Numbers(dataset, list(cautions))
    announced = numbers.whole("NumberOfFrames")
    image_type = [str(v).upper() for v in stored(dataset, "ImageType")]
    if frames != max(1, announced or 1):
        numbers.cautions.append(frame_count_differs(announced or 1, frames))
    if "MOSAIC" in image_type:
        text = "a Siemens mosaic of many slices, taken as one picture; unpack it first"
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
    """Return what can tell apart instances at one place, most telling first."""
    found: list[tuple[str, object]] = [("ImageType", tuple(image_type))]
    for keyword in _STAGES:
        values = stored(dataset, keyword)
        found.append((keyword, "\\".join(map(str, values)) if values else None))
    return tuple(found)


def _text(dataset: Dataset, keyword: str) -> str | None:
    return "\\".join(map(str, stored(dataset, keyword))).strip(" \0") or None
