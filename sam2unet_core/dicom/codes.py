"""DICOM codes for the classes and the algorithm of a task."""

from __future__ import annotations

from dataclasses import dataclass

from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID

from sam2unet_core.dicom.uids import MANUFACTURER, SOFTWARE, Provenance, derived_uid
from sam2unet_core.task import Code as TaskCode
from sam2unet_core.task import Task, TaskClass

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
