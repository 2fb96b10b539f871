"""Volumes in NIfTI, NRRD and MetaImage files, as series of slices in LPS, mm.

The libraries that read them are imported with the first volume, not with this module: every run
asks it for its suffixes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.errors import GeometryError, InputError
from sam2unet_core.geometry import Geometry
from sam2unet_core.task import Window
from sam2unet_core.types import Frame, Instance, OnError, Series, Skipped

if TYPE_CHECKING:
    from pydicom import Dataset

    from sam2unet_core.dicom.grey import GreyWindow

NIFTI_SUFFIXES = (".nii", ".nii.gz")
VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, ".nrrd", ".nhdr", ".mha", ".mhd")
LARGEST_BYTES = 2**34
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}


@dataclass(frozen=True)
class VolumeHeader:
    """What a file says of its volume.

    Attributes:
        shape: voxels along the file's axes (column, row, slice).
        colour: whether voxels are RGB.
        affine: `(4, 4)` index (column, row, slice) to LPS in mm, or None where the file has none.
        spacing_mm: (row, column) pitch.
        shown: the (lowest, highest) value to show that the file states, or None.
    """

    shape: tuple[int, int, int]
    colour: bool
    affine: NDArray[np.float64] | None
    spacing_mm: tuple[float, float]
    shown: tuple[float, float] | None = None


def volume_series(path: Path, *, source_path: Path, relative: str) -> Series | Skipped:
    """Describe a volume: one frame per slice, as stored; see `media.planes` for other planes.

    Column and row index are the file's first and second axis, so the orientation is the file's
    own and `Series.geometry` says which that is. A file that cannot be used comes back as skipped.
    """
    try:
        header = read_volume_header(path)
        geometry = _geometry(header)
    except GeometryError as error:
        return Skipped(path, "inconsistent_geometry", f"{path.name}: {error}", relative)
    except InputError as error:
        return Skipped(path, error.reason, f"{path.name}: {error}", relative)
    warnings = list(geometry.problems) if geometry else ["the file does not say where it lies"]
    columns, rows, slices = header.shape
    return Series(
        kind="array",
        instances=(Instance(path, frames=slices),),
        source=VolumeSource(),
        source_path=source_path,
        relative=relative,
        rows=rows,
        columns=columns,
        frame_count=slices,
        geometry=geometry,
        spacing_mm=header.spacing_mm,
        warnings=tuple(warnings),
    )


class VolumeSource:
    """Reads the slices of a volume file; the file's volume is held while they are read."""

    def frames(
        self, series: Series, *, window: Window | None, stride: int, on_error: OnError | None
    ) -> Iterator[Frame]:
        """Yield every `stride`-th slice."""
        path = series.instances[0].path
        try:
            header = read_volume_header(path)
            values = read_volume(path)
        except InputError as error:
            named = InputError(f"{path.name}: {error}", reason=error.reason)
            if on_error is None:
                raise named from error
            on_error(0, named)
            return
        shown = _range(values, header, window)
        for index in range(0, series.frame_count, stride):
            plane = np.swapaxes(values[:, :, index], 0, 1)  # (row, column[, RGB])
            yield Frame(_pixels(plane, shown), index, 0, index + 1)

    def dataset(self, series: Series, instance_index: int) -> Dataset | None:
        """Return None: a volume file has no DICOM header."""
        return None


def read_volume_header(path: Path) -> VolumeHeader:
    """Read a header without the voxels.

    Raises:
        InputError: not readable, not three-dimensional, or too large.
    """
    try:
        header, voxel_bytes = (_nifti if _is_nifti(path) else _itk)(path)
    except InputError:
        raise
    except Exception as error:  # the readers fail in many ways on broken files
        raise InputError(
            f"not a volume that can be read ({type(error).__name__})", reason="corrupt"
        ) from error
    size = int(np.prod(header.shape, dtype=np.float64)) * voxel_bytes
    if size > LARGEST_BYTES:
        raise InputError(
            f"{size / 2**30:.0f} GiB of voxels are too many; the limit is "
            f"{LARGEST_BYTES / 2**30:.0f} GiB",
            reason="too_large",
        )
    return header


def read_volume(path: Path) -> NDArray[Any]:
    """Read the voxels, `(column, row, slice)` or `(column, row, slice, 3)`.

    Raises:
        InputError: the file ends early or is broken.
    """
    try:
        values: NDArray[Any]
        if _is_nifti(path):
            import nibabel  # noqa: PLC0415 - see above

            values = np.asanyarray(nibabel.load(path).dataobj)
            if values.dtype.names:
                values = np.stack([values[n] for n in values.dtype.names[:3]], axis=-1)
                return values.reshape(*_three(values.shape[:-1]), 3)
            return values.reshape(_three(values.shape))
        import SimpleITK as sitk  # noqa: N813, PLC0415 - its customary name; see above

        image = sitk.ReadImage(str(path))
        values = np.asarray(sitk.GetArrayFromImage(image))  # (slice, row, column[, channel])
        if image.GetDimension() == 2:
            values = values[None]
        if values.ndim == 4:
            return np.moveaxis(values, (0, 1, 2), (2, 1, 0))[..., :3]
        return np.transpose(values, (2, 1, 0))
    except MemoryError as error:
        raise InputError("not enough memory for the volume", reason="out_of_memory") from error
    except Exception as error:
        raise InputError(
            f"the voxels cannot be read ({type(error).__name__}); copy the file again",
            reason="truncated" if isinstance(error, (EOFError, OSError)) else "corrupt",
        ) from error


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def _nifti(path: Path) -> tuple[VolumeHeader, int]:
    import nibabel  # noqa: PLC0415 - see above

    image = nibabel.load(path)
    header = image.header
    shape = _three(image.shape)
    scale = _MILLIMETRES[header.get_xyzt_units()[0]]
    affine = None
    if header["sform_code"] > 0 or header["qform_code"] > 0:
        affine = _RAS_TO_LPS @ image.affine
        affine[:3] *= scale
    pitch = [float(v) * scale for v in (*header.get_zooms()[:2], 1.0)]
    low, high = float(header["cal_min"]), float(header["cal_max"])
    dtype = image.get_data_dtype()
    return VolumeHeader(
        shape=shape,
        colour=bool(dtype.names),
        affine=affine,
        spacing_mm=(pitch[1], pitch[0]),
        shown=(low, high) if high > low else None,
    ), dtype.itemsize


def _itk(path: Path) -> tuple[VolumeHeader, int]:
    import SimpleITK as sitk  # noqa: N813, PLC0415 - its customary name; see above

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    shape = _three(reader.GetSize())
    channels = reader.GetNumberOfComponents()
    if channels not in (1, 3, 4):
        raise InputError(
            f"{channels} values per voxel; expected 1 or RGB", reason="inconsistent_geometry"
        )
    pitch = reader.GetSpacing()
    affine = None
    if reader.GetDimension() == 3:
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * np.array(pitch)
        affine[:3, 3] = reader.GetOrigin()
    header = VolumeHeader(shape, channels > 1, affine, (pitch[1], pitch[0]))
    return header, 8 * channels


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return a shape with three axes; further ones have to be of length 1.

    Raises:
        InputError: there are more, as in a time series.
    """
    if len(shape) < 2 or any(n != 1 for n in shape[3:]) or min(shape) < 1:
        raise InputError(
            f"of shape {' x '.join(str(n) for n in shape)}: a time series or more volumes in one "
            "file; save each as a file of its own",
            reason="inconsistent_geometry",
        )
    first, second, third = (*shape, 1)[:3]
    return (int(first), int(second), int(third))


def _geometry(header: VolumeHeader) -> Geometry | None:
    if header.affine is None:
        return None
    affine = header.affine
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and (lengths > 0).all()):
        raise GeometryError("its affine has axes of no length")
    steps = np.arange(header.shape[2])[:, None]
    return Geometry(
        positions=affine[:3, 3] + steps * affine[:3, 2],
        row_cosine=affine[:3, 0] / lengths[0],
        column_cosine=affine[:3, 1] / lengths[1],
        spacing_mm=(float(lengths[1]), float(lengths[0])),
        thickness_mm=float(lengths[2]),
    )


def _range(values: NDArray[Any], header: VolumeHeader, window: Window | None) -> GreyWindow | None:
    """Return what maps values to greys; None where they are 8-bit already."""
    if header.colour or (window is None and values.dtype == np.uint8):
        return None
    from sam2unet_core.dicom.grey import GreyWindow  # noqa: PLC0415 - imports pydicom

    if window is not None:
        return GreyWindow(window.center, window.width)
    if header.shown is not None:
        low, high = header.shown
    else:
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return GreyWindow((low + high) / 2, max(high - low, 1e-12), "LINEAR_EXACT")


def _pixels(plane: NDArray[Any], shown: GreyWindow | None) -> NDArray[np.uint8]:
    if plane.ndim == 3:
        return np.ascontiguousarray(plane.astype(np.uint8))
    if shown is None:
        grey = plane.astype(np.uint8)
    elif plane.dtype.kind == "f":
        grey = shown(np.nan_to_num(plane, nan=shown.center - shown.width))
    else:
        grey = shown(plane)
    return np.repeat(grey[:, :, None], 3, axis=2)
