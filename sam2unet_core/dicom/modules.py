"""Modules that every object made from a series shares: patient, study, series, equipment."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import IO

from pydicom import DataElement, FileDataset, config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from sam2unet_core.dicom.codes import PURPOSE, SEGMENTATION, code_item
from sam2unet_core.dicom.quiet import quiet
from sam2unet_core.dicom.storage import VIDEO_SYNTAXES
from sam2unet_core.dicom.uids import MANUFACTURER, SOFTWARE, Provenance, derived_uid
from sam2unet_core.errors import DataError
from sam2unet_core.types import Instance, Series

PATIENT_AND_STUDY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
"""Type 2 attributes (PS3.3 C.7.1.1, C.7.2.1): there, and empty where the source has none."""

OPTIONAL = (
    "IssuerOfPatientID",
    "PatientAge",
    "StudyDescription",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
)
"""Copied where the source has them."""

_LONGEST = {"LO": 64, "SH": 16, "LT": 10240, "AS": 4}
_SEXES = ("M", "F", "O")
_IMPLEMENTATION = UID("2.25.280829413158379391049471862047012186312")
"""Of this software as a writer of files; a random UUID, made once."""


def source_header(series: Series) -> Dataset:
    """Return the header of a series' first instance.

    Raises:
        DataError: the series is not DICOM, so there is no patient or study to write for.
    """
    header = series.dataset(0)
    if header is None:
        raise DataError(
            f"a {series.kind} series is not DICOM, so a DICOM result would have no patient, study "
            "or image to refer to; write png or nifti"
        )
    return header


def derived_dataset(
    header: Dataset, *, sop_class: str, role: str, modality: str, provenance: Provenance
) -> Dataset:
    """Return a new object in the source's study, in a series of its own, without content.

    Args:
        header: of the source; patient and study are copied, values that break their VR left empty.
        sop_class: of the new object.
        role: what it is, such as `seg`; with the key it gives the UIDs.
        modality: such as `SEG`.
        provenance: gives UIDs, dates and versions.
    """
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    with quiet():  # warnings would quote what stands in the header
        _add_patient_and_study(made, header, provenance.key)
        made.SeriesNumber = _series_number(header, role)
    made.SOPClassUID = sop_class
    made.SOPInstanceUID = derived_uid(provenance.key, role, "instance")
    made.SeriesInstanceUID = derived_uid(provenance.key, role, "series")
    made.Modality = modality
    made.InstanceNumber = 1
    _add_dates(made, provenance.started)
    made.Manufacturer = MANUFACTURER
    made.ManufacturerModelName = SOFTWARE
    made.DeviceSerialNumber = provenance.weights_sha256[:16] or "none"
    made.SoftwareVersions = provenance.version
    return made


def usable_uid(value: object) -> UID | None:
    """Return the UID if it is one that may be written (PS3.5 9.1, root 0 to 2), else None."""
    uid = UID(str(value or ""), config.IGNORE)
    return uid if uid.is_valid and uid.split(".")[0] in ("0", "1", "2") else None


def takes_frame_numbers(instance: Instance) -> bool:
    """Whether a reference to this instance names frames.

    Files exist that hold several frames though their SOP class has one only. Validators refuse
    frame numbers there; the place in the stack still tells the frame.
    """
    return instance.frames > 1 and instance.sop_class_uid not in _SINGLE_FRAME


def reference(instance: Instance, *, frame: int | None = None) -> Dataset:
    """Return the item that refers to an instance.

    A file without valid UIDs is referred to by stand-ins, which follow from its invalid UID or its
    content: SEG without a frame of reference has to refer to something. See `stand_in_note`.

    Args:
        instance: the source.
        frame: 1-based number of the frame meant; it is named for objects of several frames.
    """
    item = Dataset()
    item.ReferencedSOPClassUID = usable_uid(instance.sop_class_uid) or SecondaryCaptureImageStorage
    item.ReferencedSOPInstanceUID = usable_uid(instance.sop_instance_uid) or derived_uid(
        instance.sop_instance_uid or instance.sha256, "source instance"
    )
    if frame is not None and takes_frame_numbers(instance):
        item.ReferencedFrameNumber = frame
    return item


def source_series_uid(series: Series) -> UID:
    """Return the source's series UID, or the stand-in for a missing or invalid one."""
    return usable_uid(series.series_uid) or derived_uid(
        series.series_uid or series.instances[0].sha256, "source series"
    )


def stand_in_note(series: Series) -> tuple[str, ...]:
    """Return a sentence for readers where references go to stand-ins, else nothing."""
    uids = (series.study_uid, series.series_uid, *(i.sop_instance_uid for i in series.instances))
    if all(usable_uid(uid) for uid in uids):
        return ()
    return ("source without valid UIDs: references go to stand-ins",)


def derivation(instance: Instance, *, frame: int) -> Dataset:
    """Return the Derivation Image Sequence item (PS3.3 C.7.6.16.2.6) of one source frame."""
    source = reference(instance, frame=frame)
    source.SpatialLocationsPreserved = "YES"
    source.PurposeOfReferenceCodeSequence = [code_item(PURPOSE)]
    item = Dataset()
    item.DerivationCodeSequence = [code_item(SEGMENTATION)]
    item.SourceImageSequence = [source]
    return item


def add_source_series(made: Dataset, series: Series, *, used: Iterable[int]) -> None:
    """Add the Common Instance Reference module (PS3.3 C.12.2) for the instances used."""
    found = (reference(series.instances[index]) for index in sorted(used))
    listed = Dataset()
    listed.SeriesInstanceUID = source_series_uid(series)
    listed.ReferencedInstanceSequence = list(
        {item.ReferencedSOPInstanceUID: item for item in found}.values()
    )
    made.ReferencedSeriesSequence = [listed]


def add_lossy(made: Dataset, header: Dataset, *, instance: Instance) -> None:
    """Say whether the source's pixels went through lossy compression, and through which."""
    syntax = instance.transfer_syntax_uid or ""
    method = _LOSSY.get(syntax) or _LOSSY_VIDEO.get(VIDEO_SYNTAXES.get(syntax, ""))
    if str(header.get("LossyImageCompression") or "") != "01" and method is None:
        made.LossyImageCompression = "00"
        return
    made.LossyImageCompression = "01"
    ratio = header.get("LossyImageCompressionRatio")
    given = header.get("LossyImageCompressionMethod")
    made.LossyImageCompressionRatio = ratio or _ratio(header, instance.path)
    made.LossyImageCompressionMethod = given or method or "ISO_10918_1"


def start_file(stream: IO[bytes], made: Dataset, *, syntax: UID = ExplicitVRLittleEndian) -> None:
    """Write preamble, file meta information and the dataset; what follows is appended later."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = made.SOPClassUID
    meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = _IMPLEMENTATION
    meta.ImplementationVersionName = "SAM2UNET"
    file = FileDataset("", made, file_meta=meta, preamble=b"\0" * 128)
    with quiet():
        dcmwrite(stream, file, enforce_file_format=True)


def _add_patient_and_study(made: Dataset, header: Dataset, key: str) -> None:
    for keyword in PATIENT_AND_STUDY:
        setattr(made, keyword, _copied(header, keyword) or "")
    for keyword in OPTIONAL:
        value = _copied(header, keyword)
        if value:
            setattr(made, keyword, value)
    methods = header.get("DeidentificationMethodCodeSequence")
    if methods:
        made.DeidentificationMethodCodeSequence = methods
    if "PatientIdentityRemoved" in made and not (methods or "DeidentificationMethod" in made):
        made.DeidentificationMethod = "Not recorded in the source"
    study = str(header.get("StudyInstanceUID") or "")
    made.StudyInstanceUID = usable_uid(study) or derived_uid(study or key, "study")


def _copied(header: Dataset, keyword: str) -> str | None:
    """Return a value as text that its VR allows, else None; what is too long is cut."""
    if keyword not in header:
        return None
    element = header[keyword]
    if element.value is None or element.VM != 1:
        return None
    try:
        value = str(element.value).strip()
    except (ValueError, UnicodeError):
        return None
    value = value[: _LONGEST.get(element.VR, len(value))]
    try:
        checked = DataElement(element.tag, element.VR, value, validation_mode=config.RAISE)
    except (ValueError, TypeError, OverflowError):  # the latter two: a VR that holds no text
        return None
    if checked.VM > 1 or (keyword == "PatientSex" and value not in _SEXES):
        return None
    return value


def _series_number(header: Dataset, role: str) -> int:
    """Return a number that sorts the result behind its source and apart from other results."""
    try:
        number = int(header.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        number = 0
    return min(abs(number), 10**6) * 100 + _ORDER[role]


def _add_dates(made: Dataset, started: datetime) -> None:
    day, time = started.strftime("%Y%m%d"), started.strftime("%H%M%S")
    made.ContentDate = made.SeriesDate = made.InstanceCreationDate = day
    made.ContentTime = made.SeriesTime = made.InstanceCreationTime = time


def _ratio(header: Dataset, path: Path) -> str:
    pixels = int(header.get("Rows") or 0) * int(header.get("Columns") or 0)
    values = pixels * int(header.get("NumberOfFrames") or 1)
    samples = int(header.get("SamplesPerPixel") or 1)
    octets = values * samples * (int(header.get("BitsAllocated") or 8) // 8)
    return f"{max(1.0, octets / max(1, path.stat().st_size)):.4g}"


_ORDER = {"seg": 1, "overlay": 2, "report": 3}

_LOSSY = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
}
"""Transfer syntaxes that always lose, and the defined term of their method (PS3.3 C.7.6.1.1.5.1).

JPEG 2000 and HTJ2K that may lose (...91, ...203) are left to what the header says.
"""

_LOSSY_VIDEO = {"mpeg": "ISO_13818_2", "h264": "ISO_14496_10", "hevc": "ISO_23008_2"}

_SINGLE_FRAME = {
    f"1.2.840.10008.5.1.4.1.1.{suffix}"
    for suffix in (
        *("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "2", "4", "6", "6.1", "7", "128"),
        *("77.1.1", "77.1.2", "77.1.3", "77.1.4"),
    )
}
"""SOP classes whose definition has no multi-frame module (PS3.3 A.1.4)."""
