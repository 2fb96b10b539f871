"""DICOM modules and codes shared by all outputs: patient, study, series, equipment, classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentDescription
from pydicom import DataElement, FileDataset, config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from sam2unet_core.dicom.files import VIDEO_SYNTAXES, quiet
from sam2unet_core.dicom.uids import MANUFACTURER, SOFTWARE, Provenance, derived_uid
from sam2unet_core.errors import DataError
from sam2unet_core.task import Code as TaskCode
from sam2unet_core.task import Task, TaskClass
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
"""Type 2 attributes (PS3.3 C.7.1.1, C.7.2.1): copied, or empty."""

OPTIONAL = (
    "IssuerOfPatientID",
    "PatientAge",
    "StudyDescription",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
)
"""Copied if present."""

_MAX_LENGTH = {"LO": 64, "SH": 16, "LT": 10240, "AS": 4}
_SEXES = ("M", "F", "O")
_IMPLEMENTATION = UID("2.25.280829413158379391049471862047012186312")
"""Implementation Class UID of this software."""


def source_header(series: Series) -> Dataset:
    """Return the header of a series' first instance; raise DataError if it is not DICOM."""
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
    """Return a new object in the source's study and a new series, without content.

    Patient and study are copied from the header of the source, except invalid values. UIDs are
    derived from the key of the provenance and `role`, such as `seg`.
    """
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    with quiet():  # warnings would quote header values
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
    """Return the UID if it is valid (PS3.5 9.1, root 0 to 2), else None."""
    uid = UID(str(value or ""), config.IGNORE)
    return uid if uid.is_valid and uid.split(".")[0] in ("0", "1", "2") else None


def takes_frame_numbers(instance: Instance) -> bool:
    """Whether references to this instance include frame numbers.

    Some files have several frames although their SOP class allows one. Validators refuse frame
    numbers there; the position in the stack still identifies the frame.
    """
    return instance.frames > 1 and instance.sop_class_uid not in _SINGLE_FRAME


def reference(instance: Instance, *, frame: int | None = None) -> Dataset:
    """Return the item that references an instance.

    If its UIDs are invalid, substitutes are derived from them or from its content, since SEG
    without a frame of reference needs a reference; see `stand_in_note`. The 1-based frame number is
    included for multi-frame objects.
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
    """Return the source's series UID, or a substitute if it is missing or invalid."""
    return usable_uid(series.series_uid) or derived_uid(
        series.series_uid or series.instances[0].sha256, "source series"
    )


def stand_in_note(series: Series) -> tuple[str, ...]:
    """Return a note if references use substitute UIDs, else nothing."""
    uids = (series.study_uid, series.series_uid, *(i.sop_instance_uid for i in series.instances))
    if all(usable_uid(uid) for uid in uids):
        return ()
    return ("source without valid UIDs: references use substitutes",)


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
    """Add the attributes on lossy compression of the source's pixels."""
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
    """Write preamble, file meta information and data set; the caller appends the rest."""
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
        setattr(made, keyword, _valid_text(header, keyword) or "")
    for keyword in OPTIONAL:
        value = _valid_text(header, keyword)
        if value:
            setattr(made, keyword, value)
    methods = header.get("DeidentificationMethodCodeSequence")
    if methods:
        made.DeidentificationMethodCodeSequence = methods
    if "PatientIdentityRemoved" in made and not (methods or "DeidentificationMethod" in made):
        made.DeidentificationMethod = "Not recorded in the source"
    study = str(header.get("StudyInstanceUID") or "")
    made.StudyInstanceUID = usable_uid(study) or derived_uid(study or key, "study")


def _valid_text(header: Dataset, keyword: str) -> str | None:
    """Return a value as text that is valid for its VR, truncated if too long, else None."""
    if keyword not in header:
        return None
    element = header[keyword]
    if element.value is None or element.VM != 1:
        return None
    try:
        value = str(element.value).strip()
    except (ValueError, UnicodeError):
        return None
    value = value[: _MAX_LENGTH.get(element.VR, len(value))]
    try:
        checked = DataElement(element.tag, element.VR, value, validation_mode=config.RAISE)
    except (ValueError, TypeError, OverflowError):  # the latter two: a VR that holds no text
        return None
    if checked.VM > 1 or (keyword == "PatientSex" and value not in _SEXES):
        return None
    return value


def _series_number(header: Dataset, role: str) -> int:
    """Return a series number that sorts results behind their source."""
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
    size = values * samples * (int(header.get("BitsAllocated") or 8) // 8)
    return f"{max(1.0, size / max(1, path.stat().st_size)):.4g}"


_ORDER = {"seg": 1, "overlay": 2, "report": 3}

_LOSSY = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
}
"""Defined term (PS3.3 C.7.6.1.1.5.1) of transfer syntaxes that are always lossy.

For JPEG 2000 and HTJ2K that may be lossy (...91, ...203) the header decides.
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


FAMILY = codes.DCM.ArtificialIntelligence
"""DCM 123110, from CID 7162."""
SEGMENTATION = Code("113076", "DCM", "Segmentation")
"""Derivation of the frames, from CID 7203."""
PURPOSE = codes.DCM.SourceImageForImageProcessingOperation
"""Purpose of a reference to a source image: DCM 121322, from CID 7202."""


@dataclass(frozen=True)
class SegmentOrigin:
    """Who made a segment.

    Attributes:
        algorithm_type: DICOM Segment Algorithm Type (PS3.3 C.8.20.4): `AUTOMATIC`,
            `SEMIAUTOMATIC` where a person edited the result of an algorithm, or `MANUAL`.
        algorithm_name: name of the algorithm, at most 64 characters; empty for the task's. A
            `MANUAL` segment has none.
    """

    algorithm_type: str = "AUTOMATIC"
    algorithm_name: str = ""


BY_THE_NETWORK = SegmentOrigin()


def code(triple: TaskCode) -> Code:
    """Turn a task's (scheme, value, meaning) into a pydicom code."""
    scheme, value, meaning = triple
    return Code(value, scheme, meaning)


def code_item(given: Code) -> Dataset:
    """Return the item of a Code Sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = given.value
    item.CodingSchemeDesignator = given.scheme_designator
    item.CodeMeaning = given.meaning
    return item


def algorithm_name(task: Task) -> str:
    """Return the name of the algorithm with the task, at most 64 characters."""
    return f"{SOFTWARE} {task.name}"[:64]


def algorithm(
    task: Task, provenance: Provenance, *, name: str = ""
) -> AlgorithmIdentificationSequence:
    """Return the Algorithm Identification (PS3.3 10.16): name, version, weights, runtime."""
    return AlgorithmIdentificationSequence(
        name=name or algorithm_name(task),
        family=FAMILY,
        version=f"{provenance.version} (task {task.version})",
        source=MANUFACTURER,
        parameters=provenance.parameters,
    )


def segment_description(
    item: TaskClass, task: Task, *, provenance: Provenance, origin: SegmentOrigin = BY_THE_NETWORK
) -> Dataset:
    """Return the Segment Sequence item of one class, with its codes, colour and tracking UID."""
    identification = algorithm(task, provenance, name=origin.algorithm_name)
    return SegmentDescription(
        segment_number=item.value,
        segment_label=item.label[:64],
        segmented_property_category=code(item.category),
        segmented_property_type=code(item.type),
        algorithm_type=origin.algorithm_type,
        algorithm_identification=None if origin.algorithm_type == "MANUAL" else identification,
        tracking_uid=tracking_uid(item, provenance),
        tracking_id=tracking_id(item, provenance),
        anatomic_regions=[code(item.region)] if item.region else None,
        display_color=CIELabColor.from_rgb(*item.rgb),
    )


def background_description() -> Dataset:
    """Return the Segment Sequence item of a label map's value 0."""
    item = Dataset()
    item.SegmentNumber = 0
    item.SegmentLabel = "Background"
    item.SegmentedPropertyCategoryCodeSequence = [code_item(codes.DCM.Background)]
    item.SegmentedPropertyTypeCodeSequence = [code_item(codes.DCM.Background)]
    item.SegmentAlgorithmType = "AUTOMATIC"
    item.SegmentAlgorithmName = SOFTWARE
    item.RecommendedDisplayCIELabValue = list(CIELabColor(0.0, 0.0, 0.0).value)
    return item


def tracking_uid(item: TaskClass, provenance: Provenance) -> UID:
    """Return the UID by which SEG and report refer to the same class of one result."""
    return derived_uid(provenance.key, "tracking", item.name)


def tracking_id(item: TaskClass, provenance: Provenance) -> str:
    """Return the tracking identifier for the tracking UID."""
    return f"{item.name} {provenance.key[:12]}"
