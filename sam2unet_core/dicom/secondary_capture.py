"""Overlays as secondary capture, for viewers that cannot show segmentations."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    JPEGBaseline8Bit,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from sam2unet_core.dicom.modules import (
    PURPOSE,
    add_source_series,
    code_item,
    derived_dataset,
    reference,
    source_header,
    stand_in_note,
    start_file,
    takes_frame_numbers,
)
from sam2unet_core.dicom.seg import decimals
from sam2unet_core.dicom.uids import SOFTWARE, Provenance
from sam2unet_core.errors import DataError
from sam2unet_core.files import FileWriter
from sam2unet_core.media.image import captioned, overlay
from sam2unet_core.task import Task
from sam2unet_core.types import Frame, Series

_QUALITY = 90
_ITEM = b"\xfe\xff\x00\xe0"


class SecondaryCaptureWriter(FileWriter):
    """Writes one overlay object for a series, frame by frame.

    One frame gives a Secondary Capture, several a Multi-frame True Color Secondary Capture, in JPEG
    baseline, which every viewer supports. Each frame has a caption, see `Provenance.caption`.

    Args:
        path: the file; its folder exists.
        series: the DICOM source.
        task: gives classes and colours.
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
        self._lengths: list[int] = []
        self._sources: list[tuple[int, int]] = []  # (instance, frame number)
        self._times: list[float] = []
        self._raw = 0
        self._spool: IO[bytes] = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115

    def add(self, frame: Frame, labels: NDArray[np.uint8]) -> None:
        """Add one frame and its label map, `(H, W)` uint8: 0 background, k class k."""
        drawn = captioned(
            overlay(frame.pixels, labels, self._task.classes),
            self._provenance.caption(self._task.title),
        )
        encoded = _jpeg(drawn)
        self._spool.write(encoded)
        self._lengths.append(len(encoded))
        self._raw += drawn.size
        self._sources.append((frame.instance, frame.number))
        if frame.time_s is not None:
            self._times.append(frame.time_s)

    def _finish(self, temporary: Path) -> None:
        if not self._lengths:
            raise DataError("no frame was segmented, so there is no overlay to write")
        with temporary.open("wb") as stream:
            start_file(stream, self._dataset(), syntax=JPEGBaseline8Bit)
            stream.write(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff")
            offsets = np.cumsum([0, *(length + 8 for length in self._lengths[:-1])])
            table = offsets.astype("<u4").tobytes() if offsets[-1] < 2**32 else b""
            stream.write(_ITEM + len(table).to_bytes(4, "little") + table)
            self._spool.seek(0)
            for length in self._lengths:
                stream.write(_ITEM + length.to_bytes(4, "little") + self._spool.read(length))
            stream.write(b"\xfe\xff\xdd\xe0\0\0\0\0")

    def _release(self) -> None:
        self._spool.close()
        super()._release()

    def _dataset(self) -> Dataset:
        frames = len(self._lengths)
        several = frames > 1
        made = derived_dataset(
            self._header,
            sop_class=MultiFrameTrueColorSecondaryCaptureImageStorage
            if several
            else SecondaryCaptureImageStorage,
            role="overlay",
            modality="OT",
            provenance=self._provenance,
        )
        made.ConversionType = "WSD"
        made.SeriesDescription = f"{SOFTWARE} {self._task.title}, overlay"[:64]
        made.ImageType = ["DERIVED", "SECONDARY"]
        made.DerivationDescription = (
            f"Overlay by {SOFTWARE} {self._provenance.version}, weights "
            f"{self._provenance.weights_sha256}; {'; '.join(self._provenance.notes)}"
        )[:1024]
        notes = (*self._provenance.notes, *stand_in_note(self._series))
        made.ImageComments = "; ".join(notes)
        made.PatientOrientation = ""
        made.Laterality = ""
        made.BurnedInAnnotation = "NO" if self._series.burned_in is False else "YES"
        made.Rows, made.Columns = self._series.rows, self._series.columns
        made.SamplesPerPixel = 3
        made.PhotometricInterpretation = "YBR_FULL_422"
        made.PlanarConfiguration = 0
        made.BitsAllocated = made.BitsStored = 8
        made.HighBit = 7
        made.PixelRepresentation = 0
        made.LossyImageCompression = "01"
        made.LossyImageCompressionRatio = f"{max(1.0, self._raw / sum(self._lengths)):.4g}"
        made.LossyImageCompressionMethod = "ISO_10918_1"
        made.SourceImageSequence = self._references()
        add_source_series(made, self._series, used={i for i, _ in self._sources})
        if several:
            self._add_frames(made, frames)
        return made

    def _references(self) -> list[Dataset]:
        """Return an item for each source instance, with its frame numbers."""
        numbers: dict[int, list[int]] = {}
        for index, number in self._sources:
            numbers.setdefault(index, []).append(number)
        items = []
        for index, frames in numbers.items():
            instance = self._series.instances[index]
            item = reference(instance)
            if takes_frame_numbers(instance):
                item.ReferencedFrameNumber = frames
            item.PurposeOfReferenceCodeSequence = [code_item(PURPOSE)]
            items.append(item)
        return items

    def _add_frames(self, made: Dataset, frames: int) -> None:
        """Add the frame increment: by time, or as pages."""
        made.NumberOfFrames = frames
        if len(self._times) == frames and self._times[-1] > self._times[0]:
            step = (self._times[-1] - self._times[0]) / (frames - 1)
            made.FrameIncrementPointer = Tag("FrameTime")
            made.FrameTime = decimals([1000 * step])[0]
        else:
            made.FrameIncrementPointer = Tag("PageNumberVector")
            made.PageNumberVector = list(range(1, frames + 1))


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Return JPEG baseline with 4:2:2 chrominance, padded to an even length."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY, subsampling="4:2:2")
    content = buffer.getvalue()
    return content + b"\0" * (len(content) % 2)
