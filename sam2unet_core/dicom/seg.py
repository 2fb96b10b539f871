"""DICOM SEG for every kind of source: stacks, volumes, multi-frame objects and video.

highdicom's `Segmentation` needs the whole mask array, and single-frame sources if there is no frame
of reference, so only its parts (descriptions, codes, colours) are used. Frames are written one by
one. Empty frames are included: `nothing found` differs from `not segmented`, and some viewers need
all frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID, SegmentationStorage

from sam2unet_core.dicom.codes import background_description, segment_description
from sam2unet_core.dicom.modules import (
    add_lossy,
    add_source_series,
    derived_dataset,
    source_header,
    stand_in_note,
    start_file,
    usable_uid,
)
from sam2unet_core.dicom.seg_frames import FrameItems
from sam2unet_core.dicom.seg_packing import LARGEST, FrameSpool
from sam2unet_core.dicom.uids import SOFTWARE, Provenance, derived_uid
from sam2unet_core.errors import DataError
from sam2unet_core.files import FileWriter
from sam2unet_core.task import Task
from sam2unet_core.types import Frame, Series

SegType = Literal["binary", "fractional", "labelmap"]
MAX_FRACTIONAL_VALUE = 255
LABEL_MAP_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")
"""Label Map Segmentation Storage; not supported by SimpleITK 2.5 and dciodvfy."""


class SegWriter(FileWriter):
    """Writes one SEG for a series, frame by frame.

    Args:
        path: the file; its folder exists.
        series: the DICOM source.
        task: gives the classes.
        provenance: gives UIDs, dates and algorithm parameters.
        seg_type: `binary` masks, `fractional` probabilities in 255 steps, or a `labelmap`, in
            which overlapping classes are resolved by probability.

    Raises:
        DataError: the series is not DICOM; a mask of another size or number of classes; missing
            probabilities; no frame; more pixel data than DICOM allows.
    """

    def __init__(
        self,
        path: Path,
        series: Series,
        *,
        task: Task,
        provenance: Provenance,
        seg_type: SegType = "binary",
    ) -> None:
        super().__init__(path)
        self._series = series
        self._task = task
        self._provenance = provenance
        self._type = seg_type
        self._header = source_header(series)
        self._items = FrameItems(
            series,
            organization_uid=derived_uid(provenance.key, "seg", "dimensions"),
            segments=seg_type != "labelmap",
        )
        self._encoded: list[bytes] = []
        self._used: set[int] = set()
        self._spool = FrameSpool(
            (series.rows, series.columns),
            bits=1 if seg_type == "binary" else 8,
            folder=self.path.parent,
        )

    def add(
        self,
        frame: Frame,
        masks: NDArray[np.bool_],
        *,
        probabilities: NDArray[np.float32] | None = None,
    ) -> None:
        """Add the result of one frame.

        Args:
            frame: the frame; its pixels are not used.
            masks: `(K, H, W)` bool.
            probabilities: `(K, H, W)` in 0 to 1; needed for `fractional`, and for a `labelmap` with
                overlapping classes.
        """
        if len(masks) != self._task.num_classes:
            raise DataError(
                f"{len(masks)} masks for the {self._task.num_classes} classes of {self._task.name}"
            )
        self._used.add(frame.instance)
        if self._type == "labelmap":
            self._append(frame, _labels(masks, probabilities), segment=None)
            return
        for item, mask in zip(self._task.classes, self._planes(masks, probabilities), strict=True):
            self._append(frame, mask, segment=item.value)

    def _planes(
        self, masks: NDArray[np.bool_], probabilities: NDArray[np.float32] | None
    ) -> NDArray[np.bool_] | NDArray[np.uint8]:
        if self._type == "binary":
            return masks
        if probabilities is None:
            raise DataError("a fractional segmentation needs the probabilities, but got none")
        scaled: NDArray[np.uint8] = np.rint(probabilities * MAX_FRACTIONAL_VALUE).astype(np.uint8)
        return scaled

    def _append(
        self, frame: Frame, values: NDArray[np.bool_] | NDArray[np.uint8], *, segment: int | None
    ) -> None:
        self._spool.append(values)
        self._encoded.append(self._items.encoded(frame, segment))

    def _finish(self, temporary: Path) -> None:
        keep = self._frames_to_write()
        with temporary.open("wb") as stream:
            start_file(stream, self._dataset(frames=sum(keep)))
            self._write_items(stream, keep)
            size = self._spool.size(sum(keep))
            stream.write(b"\xe0\x7f\x10\x00OB\0\0" + size.to_bytes(4, "little"))
            self._spool.write(stream, keep=keep)

    def _release(self) -> None:
        self._spool.close()
        super()._release()

    def _frames_to_write(self) -> list[bool]:
        """Return which frames are written: all, or only non-empty ones if DICOM cannot hold all."""
        filled = self._spool.filled
        if not filled:
            raise DataError("no frame was segmented, so there is nothing to write as SEG")
        if self._spool.size(len(filled)) <= LARGEST:
            return [True] * len(filled)
        if 0 < self._spool.size(sum(filled)) <= LARGEST:
            return filled
        raise DataError(
            f"{len(filled)} frames of {self._series.rows} x {self._series.columns} pixels as "
            f"{self._type} take more than the 4 GiB that DICOM pixel data can hold; segment "
            "every Nth frame with --stride N, or use --seg-type binary"
        )

    def _write_items(self, stream: IO[bytes], keep: list[bool]) -> None:
        """Write the Per-Frame Functional Groups Sequence (5200,9230), of undefined length."""
        stream.write(b"\x00\x52\x30\x92SQ\0\0\xff\xff\xff\xff")
        for item, kept in zip(self._encoded, keep, strict=True):
            if kept:
                stream.write(item)
        stream.write(b"\xfe\xff\xdd\xe0\0\0\0\0")

    def _dataset(self, *, frames: int) -> Dataset:
        """Return the data set up to the per-frame functional groups."""
        sop_class = LABEL_MAP_STORAGE if self._type == "labelmap" else SegmentationStorage
        made = derived_dataset(
            self._header,
            sop_class=sop_class,
            role="seg",
            modality="SEG",
            provenance=self._provenance,
        )
        notes = (*self._provenance.notes, *stand_in_note(self._series))
        made.SeriesDescription = f"{SOFTWARE} {self._task.title}"[:64]
        made.ImageType = ["DERIVED", "PRIMARY"]
        made.ContentLabel = "SEGMENTATION"
        made.ContentDescription = "; ".join(notes)[:64]
        made.ImageComments = "; ".join(notes)
        made.ContentCreatorName = ""
        self._add_image(made, frames=frames)
        self._add_segments(made)
        self._add_frame_of_reference(made)
        add_source_series(made, self._series, used=self._used)
        instance = self._series.instances[min(self._used)]
        add_lossy(made, self._header, instance=instance)
        organization, indices = self._items.dimensions()
        made.DimensionOrganizationSequence = [organization]
        made.DimensionIndexSequence = indices
        made.SharedFunctionalGroupsSequence = [self._items.shared()]
        return made

    def _add_image(self, made: Dataset, *, frames: int) -> None:
        bits = self._spool.bits
        made.NumberOfFrames = frames
        made.Rows, made.Columns = self._spool.shape
        made.SamplesPerPixel = 1
        made.PhotometricInterpretation = "MONOCHROME2"
        made.PixelRepresentation = 0
        made.BitsAllocated = made.BitsStored = bits
        made.HighBit = bits - 1

    def _add_segments(self, made: Dataset) -> None:
        classes = self._task.classes
        described = [
            segment_description(c, self._task, provenance=self._provenance) for c in classes
        ]
        made.SegmentationType = self._type.upper()
        if self._type == "labelmap":
            made.PixelPaddingValue = 0
            described.insert(0, background_description())
        if self._type == "fractional":
            made.SegmentationFractionalType = "PROBABILITY"
            made.MaximumFractionalValue = MAX_FRACTIONAL_VALUE
        exclusive = self._task.activation == "softmax" or len(classes) == 1
        made.SegmentsOverlap = "NO" if exclusive or self._type == "labelmap" else "UNDEFINED"
        made.SegmentSequence = described

    def _add_frame_of_reference(self, made: Dataset) -> None:
        geometry = self._series.geometry
        if geometry is None:
            made.PatientOrientation = _orientation(self._header)
            return
        made.FrameOfReferenceUID = usable_uid(geometry.frame_of_reference_uid) or derived_uid(
            self._provenance.key, "frame of reference"
        )
        made.PositionReferenceIndicator = ""


def _labels(
    masks: NDArray[np.bool_], probabilities: NDArray[np.float32] | None
) -> NDArray[np.uint8]:
    """Return `(H, W)`: 0 background, k the most probable class whose mask holds the pixel."""
    if probabilities is None:
        if (masks.sum(axis=0) > 1).any():
            raise DataError("the classes overlap; a label map needs the probabilities to choose")
        probabilities = masks.astype(np.float32)
    most_probable = np.where(masks, probabilities, -1.0).argmax(axis=0) + 1
    return np.where(masks.any(axis=0), most_probable, 0).astype(np.uint8)


def _orientation(header: Dataset) -> list[str] | str:
    """Return the source's Patient Orientation, or empty (type 2C)."""
    given = header.get("PatientOrientation")
    return [str(part) for part in given] if given and len(given) == 2 else ""
