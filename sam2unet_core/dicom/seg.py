"""DICOM SEG for every kind of source: stacks, volumes, multi-frame objects and video.

highdicom's `Segmentation` needs the whole mask array, and single-frame sources if there is no frame
of reference, so only its parts (descriptions, codes, colours) are used. Frames are written one by
one. Empty frames are included: `nothing found` differs from `not segmented`, and some viewers need
all frames.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag
from pydicom.uid import UID, SegmentationStorage
from pydicom.valuerep import DSfloat

from sam2unet_core.dicom.modules import (
    BY_THE_NETWORK,
    SegmentOrigin,
    add_lossy,
    add_source_series,
    background_description,
    derivation,
    derived_dataset,
    segment_description,
    source_header,
    stand_in_note,
    start_file,
    usable_uid,
)
from sam2unet_core.dicom.uids import SOFTWARE, Provenance, derived_uid
from sam2unet_core.errors import DataError
from sam2unet_core.files import FileWriter
from sam2unet_core.geometry import Geometry
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
        origins: who made each class; by default all are the network's.

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
        origins: Sequence[SegmentOrigin] | None = None,
    ) -> None:
        super().__init__(path)
        self._series = series
        self._task = task
        self._provenance = provenance
        self._type = seg_type
        self._origins = origins or [BY_THE_NETWORK] * task.num_classes
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
            segment_description(c, self._task, provenance=self._provenance, origin=origin)
            for c, origin in zip(classes, self._origins, strict=True)
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


STACK_ID = "1"
UNKNOWN_THICKNESS = 1.0
"""Slice thickness in mm if the source states none; SEG requires a value."""


class FrameItems:
    """Builds the Per-Frame Functional Groups Sequence items of one series.

    Frames with a position in the patient are indexed by it; others, such as endoscopy and cine, by
    Stack ID and their index in the series.

    Args:
        series: the source.
        organization_uid: Dimension Organization UID.
        segments: whether each frame belongs to one segment (all types except label maps).
    """

    def __init__(self, series: Series, *, organization_uid: str, segments: bool) -> None:
        self._series = series
        self._organization = organization_uid
        self._segments = segments
        self._by_position = series.geometry is not None and not series.geometry.repeated
        self._ranks = _ranks(series.geometry) if series.geometry is not None else []

    def dimensions(self) -> tuple[Dataset, list[Dataset]]:
        """Return the Dimension Organization item and the Dimension Index items (C.7.6.17)."""
        organization = Dataset()
        organization.DimensionOrganizationUID = self._organization
        pointers = [("ReferencedSegmentNumber", "SegmentIdentificationSequence")]
        if not self._segments:
            pointers = []
        if self._by_position:
            pointers.append(("ImagePositionPatient", "PlanePositionSequence"))
        else:
            pointers.append(("StackID", "FrameContentSequence"))
            pointers.append(("InStackPositionNumber", "FrameContentSequence"))
        return organization, [self._index(*names) for names in pointers]

    def encoded(self, frame: Frame, segment: int | None) -> bytes:
        """Return the encoded item of one frame; `segment` is None for a label map."""
        return encode_item(self._item(frame, segment))

    def shared(self) -> Dataset:
        """Return the Shared Functional Groups item."""
        item = Dataset()
        geometry = self._series.geometry
        if geometry is None:
            return item
        orientation = Dataset()
        cosines = np.concatenate([geometry.row_cosine, geometry.column_cosine])
        orientation.ImageOrientationPatient = decimals(cosines.tolist())
        item.PlaneOrientationSequence = [orientation]
        measures = Dataset()
        measures.PixelSpacing = decimals(geometry.spacing_mm)
        step = _step(geometry)
        measures.SliceThickness = decimals([geometry.thickness_mm or step or UNKNOWN_THICKNESS])[0]
        if step:
            measures.SpacingBetweenSlices = decimals([step])[0]
        item.PixelMeasuresSequence = [measures]
        return item

    def _index(self, attribute: str, group: str) -> Dataset:
        item = Dataset()
        item.DimensionOrganizationUID = self._organization
        item.DimensionIndexPointer = Tag(attribute)
        item.FunctionalGroupPointer = Tag(group)
        item.DimensionDescriptionLabel = attribute
        return item

    def _item(self, frame: Frame, segment: int | None) -> Dataset:
        item = Dataset()
        content = Dataset()
        indices = [] if segment is None else [segment]
        if self._by_position:
            content.DimensionIndexValues = [*indices, self._ranks[frame.index]]
        else:
            content.StackID = STACK_ID
            content.InStackPositionNumber = frame.index + 1
            content.DimensionIndexValues = [*indices, 1, frame.index + 1]
        item.FrameContentSequence = [content]
        instance = self._series.instances[frame.instance]
        item.DerivationImageSequence = [derivation(instance, frame=frame.number)]
        geometry = self._series.geometry
        if geometry is not None:
            place = Dataset()
            place.ImagePositionPatient = decimals(geometry.positions[frame.index].tolist())
            item.PlanePositionSequence = [place]
        if segment is not None:
            identification = Dataset()
            identification.ReferencedSegmentNumber = segment
            item.SegmentIdentificationSequence = [identification]
        return item


def encode_item(item: Dataset) -> bytes:
    """Return a sequence item with its tag and length, in Explicit VR Little Endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = False
    write_dataset(buffer, item)
    value: bytes = buffer.getvalue()
    return b"\xfe\xff\x00\xe0" + len(value).to_bytes(4, "little") + value


def decimals(values: Sequence[float]) -> list[DSfloat]:
    """Return numbers as decimal strings of at most 16 characters (PS3.5 6.2, DS)."""
    return [DSfloat(float(value) + 0.0, auto_format=True) for value in values]


def _ranks(geometry: Geometry) -> list[int]:
    """Return the 1-based rank of each frame along the normal."""
    order = np.argsort(geometry.offsets_mm, kind="stable")
    ranks = np.empty(len(order), int)
    ranks[order] = np.arange(1, len(order) + 1)
    return [int(rank) for rank in ranks]


def _step(geometry: Geometry) -> float | None:
    """Return the distance between neighbouring frames if it is constant, else None."""
    if len(geometry.positions) < 2 or geometry.uneven:
        return None
    return float(abs(geometry.offsets_mm[-1] - geometry.offsets_mm[0])) / (
        len(geometry.positions) - 1
    )


LARGEST = 2**32 - 2
"""Bytes that one native Pixel Data element can hold (PS3.5 7.1: 32-bit even length)."""


class FrameSpool:
    """Frames of one size, to be written as native Pixel Data.

    Args:
        shape: (rows, columns).
        bits: 1 for bool frames, packed without padding, first pixel in the lowest bit (PS3.5 8.1.1
            and D.1), or 8 for uint8 frames.
        folder: where the anonymous spool file is created.
    """

    def __init__(self, shape: tuple[int, int], *, bits: int, folder: Path) -> None:
        self.shape = shape
        self.bits = bits
        self.filled: list[bool] = []
        self._spool: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def append(self, values: NDArray[np.bool_] | NDArray[np.uint8]) -> None:
        """Add a frame, `(rows, columns)` bool or uint8; raise DataError if its size differs."""
        if values.shape != self.shape:
            raise DataError(
                f"a mask of {values.shape} for frames of {self.shape}; expected equal sizes"
            )
        filled = bool(values.any())
        self.filled.append(filled)
        if filled:
            flat = values.reshape(-1)  # (rows * columns,)
            packed = np.packbits(flat, bitorder="little") if self.bits == 1 else flat
            self._spool.write(packed.tobytes())

    def size(self, frames: int) -> int:
        """Return the bytes of Pixel Data for this number of frames, padded to even."""
        bits = frames * self.shape[0] * self.shape[1] * self.bits
        length = -(-bits // 8)
        return length + length % 2

    def write(self, stream: IO[bytes], *, keep: list[bool]) -> None:
        """Write the frames for which `keep` is true; the value is padded to even length."""
        self._spool.seek(0)
        writer = _BitWriter(stream)
        pixels = self.shape[0] * self.shape[1]
        length = -(-pixels * self.bits // 8)
        empty = np.zeros(length, np.uint8)
        for filled, kept in zip(self.filled, keep, strict=True):
            packed = np.frombuffer(self._spool.read(length), np.uint8) if filled else empty
            if kept:
                writer.write(packed, bits=pixels * self.bits)
        writer.finish()

    def close(self) -> None:
        """Delete the spool."""
        self._spool.close()


class _BitWriter:
    """Writes runs of bits without padding between them."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._carry = np.uint8(0)
        self._used = 0  # number of bits in the carry
        self._written = 0

    def write(self, packed: NDArray[np.uint8], *, bits: int) -> None:
        """Write the first `bits` of `packed`, lowest bit first; further bits must be 0."""
        if self._used:
            low = packed << np.uint8(self._used)
            high = packed >> np.uint8(8 - self._used)
            low[1:] |= high[:-1]
            low[0] |= self._carry
            packed = np.append(low, high[-1])
        whole, self._used = divmod(self._used + bits, 8)
        self._carry = packed[whole] if self._used else np.uint8(0)
        self._put(packed[:whole].tobytes())

    def finish(self) -> None:
        if self._used:
            self._put(self._carry.tobytes())
        if self._written % 2:
            self._put(b"\0")

    def _put(self, content: bytes) -> None:
        self._stream.write(content)
        self._written += len(content)
