"""Label maps as NIfTI, in the geometry of their source."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import IO

import nibabel
import numpy as np
from numpy.typing import NDArray

from sam2unet_core.errors import DataError, GeometryError
from sam2unet_core.media.writer import FileWriter
from sam2unet_core.types import Frame, Series

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""NIfTI's axes go to the patient's right, front and head; ours to the left, back and head."""

_SCANNER = 1
"""NIfTI code of coordinates: those of the scanner."""
_LARGEST_AXIS = 32767
"""NIfTI-1 stores sizes as 16-bit integers."""


class LabelMapWriter(FileWriter):
    """Writes one `.nii.gz` for a series, being given its label maps one by one.

    Voxels are in the order (column, row, frame); the affine says where they are. Frames that are
    not given are background. Memory holds one frame.

    Args:
        path: the file; its folder exists. It is there whole or, after an error, not at all.
        series: the source; its geometry has to be regular.
        note: for the header's description; the first 79 bytes are kept.

    Raises:
        GeometryError: the source has no geometry, or one that no affine describes.
        DataError: more frames than NIfTI holds; later, by `add`: a map of another size, or frames
            out of order.
    """

    def __init__(self, path: Path, series: Series, *, note: str = "") -> None:
        super().__init__(path)
        self._series = series
        self._header = _header(series, note)
        self._next = 0
        self._spool: IO[bytes] = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115
        # no name and no time in the file, so that the same map gives the same bytes
        self._packed = gzip.GzipFile("", "wb", 6, self._spool, mtime=0)
        self._packed.write(self._header)

    def add(self, frame: Frame, labels: NDArray[np.uint8]) -> None:
        """Take the label map of one frame, `(H, W)` uint8: 0 background, k class k."""
        shape = (self._series.rows, self._series.columns)
        if labels.shape != shape or labels.dtype != np.uint8:
            raise DataError(f"{labels.dtype} labels of {labels.shape}; expected uint8 of {shape}")
        if frame.index < self._next:
            raise DataError(f"frame {frame.index} after frame {self._next - 1}; frames go upwards")
        self._fill(frame.index)
        self._packed.write(labels.tobytes())  # (H, W) row-major: NIfTI's first axis is the column
        self._next = frame.index + 1

    def _fill(self, until: int) -> None:
        empty = bytes(self._series.rows * self._series.columns)
        for _ in range(self._next, until):
            self._packed.write(empty)

    def _finish(self, temporary: Path) -> None:
        if not self._next:
            raise DataError("no frame was segmented, so there is no label map to write")
        self._fill(self._series.frame_count)
        self._packed.close()
        self._spool.seek(0)
        with temporary.open("wb") as stream:
            while part := self._spool.read(1 << 20):
                stream.write(part)

    def _release(self) -> None:
        self._packed.close()
        self._spool.close()
        super()._release()


def _header(series: Series, note: str) -> bytes:
    """Return the 352 bytes before the voxels."""
    if series.geometry is None:
        raise GeometryError(
            "the frames have no place in space, which NIfTI needs; write seg or png"
        )
    affine = LPS_TO_RAS @ series.geometry.affine()
    shape = (series.columns, series.rows, series.frame_count)
    if max(shape) > _LARGEST_AXIS:
        raise DataError(f"{shape} voxels; NIfTI holds {_LARGEST_AXIS} along an axis; write seg")
    header = nibabel.Nifti1Header(endianness="<")
    header.set_data_shape(shape)
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header.set_xyzt_units("mm")
    header.set_qform(affine, _SCANNER)
    header.set_sform(affine, _SCANNER)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    header["descrip"] = note.encode()[:79]
    return bytes(header.binaryblock) + bytes(4)  # no extensions
