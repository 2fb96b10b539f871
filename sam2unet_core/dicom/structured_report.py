"""Measurements as a DICOM structured report (TID 1500): areas and counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ComprehensiveSRStorage
from scipy import ndimage

from sam2unet_core.dicom.modules import (
    algorithm_name,
    code,
    derived_dataset,
    reference,
    source_header,
    source_series_uid,
    stand_in_note,
    start_file,
    takes_frame_numbers,
    tracking_id,
    tracking_uid,
)
from sam2unet_core.dicom.uids import MANUFACTURER, SOFTWARE, Provenance, derived_uid
from sam2unet_core.errors import DataError
from sam2unet_core.files import FileWriter
from sam2unet_core.task import Task, TaskClass
from sam2unet_core.types import Frame, Series

MAX_LISTED_FRAMES = 200
"""Frames listed per class, those with the largest areas; the totals cover all."""

AREA = codes.SCT.Area
REGIONS = Code("246432004", "SCT", "Number of occurrences")
"""Number of connected regions."""
FRAMES = codes.DCM.NumberOfFrames
PIXELS = Code("{pixels}", "UCUM", "pixels")
COUNT = Code("1", "UCUM", "no units")

_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


@dataclass(frozen=True)
class _Finding:
    """Finding of one class in one frame."""

    frame: int
    instance: int
    number: int
    pixels: int
    regions: int


class ReportWriter(FileWriter):
    """Writes one report for a series, frame by frame.

    For each class: the number of frames segmented and of frames with a finding, and the largest
    area; then, for at most `MAX_LISTED_FRAMES` frames, area and number of regions.
    Areas are in mm2 if the pixel spacing is known, else in pixels.

    Args:
        path: the file; its folder exists.
        series: the DICOM source.
        task: gives the classes.
        provenance: gives UIDs, dates and algorithm parameters.

    Raises:
        DataError: the series is not DICOM, or no frame was added.
    """

    def __init__(self, path: Path, series: Series, *, task: Task, provenance: Provenance) -> None:
        super().__init__(path)
        self._series = series
        self._task = task
        self._provenance = provenance
        self._header = source_header(series)
        self._found: dict[int, list[_Finding]] = {item.value: [] for item in task.classes}
        self._used: set[int] = set()
        self._frames = 0

    def add(self, frame: Frame, masks: NDArray[np.bool_]) -> None:
        """Add the masks of one frame, `(K, H, W)` bool."""
        self._frames += 1
        self._used.add(frame.instance)
        for item, mask in zip(self._task.classes, masks, strict=True):
            pixels = int(np.count_nonzero(mask))
            if pixels:
                regions = int(ndimage.label(mask, _EIGHT_NEIGHBOURS)[1])
                found = _Finding(frame.index, frame.instance, frame.number, pixels, regions)
                self._found[item.value].append(found)

    def _finish(self, temporary: Path) -> None:
        if not self._frames:
            raise DataError("no frame was segmented, so there is nothing to report")
        made = derived_dataset(
            self._header,
            sop_class=ComprehensiveSRStorage,
            role="report",
            modality="SR",
            provenance=self._provenance,
        )
        made.SeriesDescription = f"{SOFTWARE} {self._task.title}, areas"[:64]
        made.CompletionFlag = "COMPLETE"
        made.VerificationFlag = "UNVERIFIED"
        made.PreliminaryFlag = "PRELIMINARY"
        made.ReferencedPerformedProcedureStepSequence = []
        made.PerformedProcedureCodeSequence = []
        evidence = self._evidence(made.StudyInstanceUID)
        made.CurrentRequestedProcedureEvidenceSequence = [evidence]
        made.update(self._report()[0])
        with temporary.open("wb") as stream:
            start_file(stream, made)

    def _evidence(self, study_uid: str) -> Dataset:
        """Return the study, series and instances used (PS3.3 C.17.2.3)."""
        used = (reference(self._series.instances[index]) for index in sorted(self._used))
        series = Dataset()
        series.SeriesInstanceUID = source_series_uid(self._series)
        series.ReferencedSOPSequence = list(
            {item.ReferencedSOPInstanceUID: item for item in used}.values()
        )
        study = Dataset()
        study.StudyInstanceUID = study_uid
        study.ReferencedSeriesSequence = [series]
        return study

    def _report(self) -> MeasurementReport:
        device = DeviceObserverIdentifyingAttributes(
            uid=derived_uid(self._provenance.key, "device"),
            name=algorithm_name(self._task),
            manufacturer_name=MANUFACTURER,
            model_name=f"{SOFTWARE} {self._provenance.version}",
            serial_number=self._provenance.weights_sha256[:16] or None,
        )
        groups = []
        for item in self._task.classes:
            found = sorted(self._found[item.value], key=lambda each: -each.pixels)
            groups.append(self._summary(item, found))
            listed = sorted(found[:MAX_LISTED_FRAMES], key=lambda each: each.frame)
            groups.extend(self._group(item, each) for each in listed)
        return MeasurementReport(
            observation_context=ObservationContext(
                observer_device_context=ObserverContext(codes.DCM.Device, device)
            ),
            procedure_reported=codes.SCT.ImagingProcedure,
            imaging_measurements=groups,
        )

    def _summary(
        self, item: TaskClass, found: Sequence[_Finding]
    ) -> MeasurementsAndQualitativeEvaluations:
        """Return the group of a class for the series; `found` is sorted by decreasing area."""
        largest = [self._area(found[0], derivation=codes.SCT.Maximum)] if found else []
        group = self._measurements(
            item,
            TrackingIdentifier(
                tracking_uid(item, self._provenance), tracking_id(item, self._provenance)
            ),
            [Measurement(name=FRAMES, value=self._frames, unit=COUNT), *largest],
            images=found[:1],
            algorithm=self._algorithm(),
        )
        text = f"{item.label}: found in {len(found)} of {self._frames} segmented frames."
        if len(found) > MAX_LISTED_FRAMES:
            text += f" Only the {MAX_LISTED_FRAMES} frames with the largest areas are listed."
        if self._series.spacing_note:
            text += f" Pixel spacing: {self._series.spacing_note}."
        notes = (*self._provenance.notes, *stand_in_note(self._series))
        comment = TextContentItem(
            name=codes.DCM.Comment,
            value=f"{text} {'. '.join(notes)}.",
            relationship_type=RelationshipTypeValues.CONTAINS,
        )
        group[0].ContentSequence.append(comment)
        return group

    def _group(self, item: TaskClass, found: _Finding) -> MeasurementsAndQualitativeEvaluations:
        """Return the group of a class for one frame."""
        name = f"{tracking_id(item, self._provenance)} frame {found.frame + 1}"
        uid = derived_uid(self._provenance.key, "tracking", item.name, found.frame)
        count = Measurement(name=REGIONS, value=found.regions, unit=COUNT)
        return self._measurements(
            item, TrackingIdentifier(uid, name), [self._area(found), count], images=[found]
        )

    def _measurements(
        self,
        item: TaskClass,
        tracking: TrackingIdentifier,
        measurements: Sequence[Measurement],
        *,
        images: Sequence[_Finding],
        algorithm: AlgorithmIdentification | None = None,
    ) -> MeasurementsAndQualitativeEvaluations:
        return MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            finding_type=code(item.type),
            finding_category=code(item.category),
            finding_sites=[FindingSite(code(item.region))] if item.region else None,
            algorithm_id=algorithm,
            measurements=measurements,
            source_images=[self._image(each) for each in images] or None,
        )

    def _algorithm(self) -> AlgorithmIdentification:
        return AlgorithmIdentification(
            name=algorithm_name(self._task),
            version=f"{self._provenance.version} (task {self._task.version})",
            parameters=[f"{k}={v}" for k, v in self._provenance.parameters.items()],
        )

    def _area(self, found: _Finding, *, derivation: Code | None = None) -> Measurement:
        spacing = self._series.spacing_mm
        if spacing is None:
            return Measurement(name=AREA, value=found.pixels, unit=PIXELS, derivation=derivation)
        area = round(found.pixels * spacing[0] * spacing[1], 4)
        unit = codes.UCUM.SquareMillimeter
        return Measurement(name=AREA, value=area, unit=unit, derivation=derivation)

    def _image(self, found: _Finding) -> SourceImageForMeasurementGroup:
        instance = self._series.instances[found.instance]
        item = reference(instance)
        frames = [found.number] if takes_frame_numbers(instance) else None
        return SourceImageForMeasurementGroup(
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID, frames
        )
