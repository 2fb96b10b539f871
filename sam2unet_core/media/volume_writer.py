"""Label maps as NIfTI, with the geometry of their source."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from sam2unet_core.errors import DataError, GeometryError
from sam2unet_core.files import FileWriter
from sam2unet_core.media.nifti import NiftiFile
from sam2unet_core.media.volume import read_volume_header
from sam2unet_core.types import Frame, Kind, Series

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""NIfTI axes point to the patient's right, front and head; ours to the left, back and head."""

_SCANNER = 1
"""NIfTI code of scanner coordinates."""
_CHUNK = 1 << 20
_MAX_AXIS = 32767
"""NIfTI-1 stores sizes as 16-bit integers."""
_MATRICES = {
    "qform": ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    "sform": ("srow_x", "srow_y", "srow_z"),
}
_COPIED_FIELDS = (
    *("qform_code", *_MATRICES["qform"], "sform_code", *_MATRICES["sform"], "xyzt_units"),
    *("dim_info", "slice_code", "slice_start", "slice_end", "slice_duration", "toffset"),
)


class LabelMapWriter(FileWriter):
    """Writes one `.nii.gz` for a series, label map by label map, with one frame in memory.

    Voxels are in the order (column, row, frame), frames in spatial order. Frames that are not added
    are background.

    Args:
        path: the file; its folder exists.
        series: the source. The header of a NIfTI file is copied; NRRD and MetaImage give their
            affine; other sources need a regular geometry.
        note: description in the header, cut to 79 bytes.

    Raises:
        GeometryError: the source is not a volume file, and no affine describes its geometry.
        InputError: the header of the source can no longer be read.
        DataError: too many frames for NIfTI; a map of another size; frames out of order.
    """

    def __init__(self, path: Path, series: Series, *, note: str = "") -> None:
        super().__init__(path)
        self._series = series
        self._header = _header(series, note)
        self._next = 0
        order = _order(series)
        self._places = {index: place for place, index in enumerate(order)}
        self._spool: IO[bytes] = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115

    def add(self, frame: Frame, labels: NDArray[np.uint8]) -> None:
        """Add the label map of one frame, `(H, W)` uint8: 0 background, k class k."""
        shape = (self._series.rows, self._series.columns)
        if labels.shape != shape or labels.dtype != np.uint8:
            raise DataError(f"{labels.dtype} labels of {labels.shape}; expected uint8 of {shape}")
        if frame.index < self._next:
            raise DataError(
                f"frame {frame.index} after frame {self._next - 1}; add frames in ascending order"
            )
        self._spool.seek(self._places[frame.index] * labels.size)
        self._spool.write(labels.tobytes())  # (H, W) row-major: NIfTI's first axis is the column
        self._next = frame.index + 1

    def _finish(self, temporary: Path) -> None:
        if not self._next:
            raise DataError("no frame was segmented, so there is no label map to write")
        self._spool.truncate(self._series.rows * self._series.columns * self._series.frame_count)
        self._spool.seek(0)
        # no name and no time, so that the same map gives the same bytes
        with temporary.open("wb") as stream, gzip.GzipFile("", "wb", 6, stream, mtime=0) as packed:
            packed.write(self._header)
            shutil.copyfileobj(self._spool, packed, _CHUNK)

    def _release(self) -> None:
        self._spool.close()
        super()._release()


def _order(series: Series) -> Sequence[int]:
    """Return the frame indices in the order of the file."""
    if series.geometry is None or series.kind == Kind.ARRAY:
        return range(series.frame_count)
    return series.geometry.spatial_order


def _header(series: Series, note: str) -> bytes:
    """Return the bytes before the voxels: 352, or 544 for NIfTI-2."""
    shape = (series.columns, series.rows, series.frame_count)
    source = read_volume_header(series.instances[0].path) if series.kind == Kind.ARRAY else None
    if source is not None and source.nifti is not None:
        header = _copied_header(source.nifti, shape)
    else:
        _check_size(shape)
        header = nibabel.Nifti1Header(endianness="<")
        header.set_data_shape(shape if source is None else shape[: source.axes])
        header.set_xyzt_units("mm")
        _set_affine(header, _affine(series) if source is None else source.affine)
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    block = header.sizeof_hdr + 4  # no extensions
    header["vox_offset"] = block
    header["magic"] = header.single_magic
    header["descrip"] = note.encode()[:79]
    return bytes(header.binaryblock).ljust(block, b"\0")


def _affine(series: Series) -> NDArray[np.float64]:
    if series.geometry is None:
        raise GeometryError(
            "the frames have no position in space, which NIfTI needs; write seg or png"
        )
    return series.geometry.in_spatial_order().affine()


def _check_size(shape: tuple[int, ...]) -> None:
    if max(shape) > _MAX_AXIS:
        raise DataError(f"{shape} voxels; NIfTI allows {_MAX_AXIS} per axis; write seg")


def _set_affine(header: Any, affine: NDArray[np.float64] | None) -> None:
    """Set the sform, and the qform if the axes are orthogonal, which a quaternion requires."""
    if affine is None or not np.isfinite(affine).all() or not np.linalg.det(affine):
        return
    ras = LPS_TO_RAS @ affine
    axes = ras[:3, :3] / np.linalg.norm(ras[:3, :3], axis=0)
    orthogonal = np.allclose(axes.T @ axes, np.eye(3), atol=1e-4)
    header.set_qform(ras, _SCANNER if orthogonal else 0)
    header.set_sform(ras, _SCANNER)


def _copied_header(source: NiftiFile, shape: tuple[int, int, int]) -> Any:
    """Return a header with the geometry of the source: matrices, codes, voxel size and units.

    Texts and extensions, which may name a patient, and invalid matrices are not copied.
    """
    two = isinstance(source.header, nibabel.Nifti2Header)
    header = (nibabel.Nifti2Header if two else nibabel.Nifti1Header)(endianness="<")
    if not two:
        _check_size(shape)
    header.set_data_shape(shape[: max(2, min(3, len(source.shape)))])
    if not isinstance(source.header, nibabel.Nifti1Header):  # MGH, Analyze
        header.set_xyzt_units("mm")
        header["pixdim"][1:4] = (*np.abs(source.header.get_zooms()), 1, 1)[:3]
        if source.affine is not None:
            _set_affine(header, LPS_TO_RAS @ source.affine)
        return header
    for name in _COPIED_FIELDS:
        header[name] = source.header[name]
    header["pixdim"][:4] = source.header["pixdim"][:4]
    for name in source.unusable:
        header[f"{name}_code"] = 0
        for key in _MATRICES[name]:
            header[key] = 0
    return header
