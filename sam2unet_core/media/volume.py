"""Volumes in NIfTI, NRRD and MetaImage files, as series of slices in LPS, mm.

The libraries are imported with the first volume, since every run imports this module.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.errors import GeometryError, InputError, Reason
from sam2unet_core.geometry import Geometry
from sam2unet_core.media.display import display_range, to_pixels
from sam2unet_core.task import Window
from sam2unet_core.types import Caution, Frame, Indices, Instance, Kind, OnError, Series, Skipped

if TYPE_CHECKING:
    from pydicom import Dataset

    from sam2unet_core.media.nifti import NiftiFile

NIFTI_SUFFIXES = (".nii", ".nii.gz", ".mgh", ".mgz")
VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, ".nrrd", ".nhdr", ".mha", ".mhd")
PAIR_SUFFIXES = (".img", ".img.gz")
"""Voxel files of NIfTI and Analyze pairs; `.hdr` beside them is the header."""
_PAIR_HEADERS = (".hdr", ".hdr.gz")
_NEEDS_OTHER_FILES = (".nhdr", ".mhd")
_NRRD = (".nrrd", ".nhdr")
_ASSUMED_SPACE = Caution(
    "value_assumed",
    "the file does not state the direction of its axes (no `space`): LPS was assumed",
)
LARGEST_BYTES = 2**34
_MAX_TEXT = 1 << 16
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class VolumeHeader:
    """Header of a volume.

    Attributes:
        shape: voxels along the file's axes (column, row, slice).
        colour: whether voxels are RGB.
        affine: `(4, 4)` index (column, row, slice) to LPS in mm, or None; for a picture the slice
            axis is 1 mm long.
        spacing_mm: (row, column) pitch, or None.
        axes: number of axes in the file: 2 for a picture.
        shown: the (lowest, highest) value to show that the file states, or None.
        nifti: the header of NIfTI, Analyze and MGH; None for other formats.
        cautions: what was guessed or ignored.
        warnings: other facts that a user should know.
    """

    shape: tuple[int, int, int]
    colour: bool
    affine: NDArray[np.float64] | None
    spacing_mm: tuple[float, float] | None
    axes: int = 3
    shown: tuple[float, float] | None = None
    nifti: NiftiFile | None = None
    cautions: tuple[Caution, ...] = ()
    warnings: tuple[str, ...] = ()


def volume_series(path: Path, *, source_path: Path, relative: str) -> Series | Skipped:
    """Describe a volume: one frame per slice, as stored; see `media.planes` for other planes.

    Column and row index are the first and second axis of the file, so the orientation is that of
    the file; see `Series.geometry`. A file that cannot be used is returned as skipped.
    """
    try:
        header = read_volume_header(path)
    except InputError as error:
        return Skipped(path, error.reason, f"{path.name}: {error}", relative)
    geometry, cautions = _geometry(header)
    invalid = bool(cautions)
    if geometry is not None:
        warnings = geometry.problems
    else:
        warnings = () if invalid else ("the file does not state its position in space",)
    columns, rows, slices = header.shape
    cautions = (*header.cautions, *cautions)
    return Series(
        kind=Kind.ARRAY,
        instances=(Instance(path, frames=slices, cautions=cautions, companions=companions(path)),),
        source=VolumeSource(),
        source_path=source_path,
        relative=relative,
        rows=rows,
        columns=columns,
        frame_count=slices,
        geometry=geometry,
        spacing_mm=None if geometry is None and invalid else header.spacing_mm,
        warnings=(*header.warnings, *warnings),
    )


class VolumeSource:
    """Reads the slices of a volume file; the volume is held in memory meanwhile."""

    def frames(
        self, series: Series, *, indices: Indices, window: Window | None, on_error: OnError | None
    ) -> Iterator[Frame]:
        """Yield slices."""
        path = series.instances[0].path
        try:
            header = read_volume_header(path)
            values = read_volume(path)
            shown, guessed = (
                (None, ())
                if header.colour
                else display_range(values, stated=header.shown, window=window)
            )
        except InputError as error:
            named = InputError(f"{path.name}: {error}", reason=error.reason)
            if on_error is None:
                raise named from error
            on_error(0, named)
            return
        for index in range(series.frame_count) if indices is None else indices:
            plane = np.swapaxes(values[:, :, index], 0, 1)  # (row, column[, RGB])
            pixels, found = to_pixels(plane, shown)
            yield Frame(pixels, index, 0, index + 1, cautions=(*guessed, *found))

    def dataset(self, series: Series, instance_index: int) -> Dataset | None:
        """Return None: a volume file has no DICOM header."""
        return None


def read_volume_header(path: Path) -> VolumeHeader:
    """Read a header without the voxels.

    Raises:
        InputError: not readable, more than three axes, or too large.
    """
    try:
        header, voxel_bytes = (_nifti if _is_nifti(path) else _itk)(path)
    except InputError:
        raise
    except EOFError as error:
        raise InputError(
            "the file ends within its header; copy it again", reason=Reason.TRUNCATED
        ) from error
    except Exception as error:  # the readers fail in many ways on broken files
        reason = Reason.TRUNCATED if path.is_file() and not path.stat().st_size else Reason.CORRUPT
        raise InputError(
            f"not a supported volume ({type(error).__name__})", reason=reason
        ) from error
    size = int(np.prod(header.shape, dtype=np.float64)) * voxel_bytes
    if size > LARGEST_BYTES:
        raise InputError(
            f"{size / 2**30:.0f} GiB of voxels are too large; the limit is "
            f"{LARGEST_BYTES / 2**30:.0f} GiB",
            reason=Reason.TOO_LARGE,
        )
    return header


def read_volume(path: Path) -> NDArray[Any]:
    """Read the voxels, `(column, row, slice)` or `(column, row, slice, 3)`.

    Raises:
        InputError: the file is truncated or broken.
    """
    try:
        values: NDArray[Any]
        if _is_nifti(path):
            from sam2unet_core.media.nifti import read_nifti  # noqa: PLC0415 - see above

            values = read_nifti(path).values()
            if values.dtype.names:
                values = np.stack([values[n] for n in values.dtype.names[:3]], axis=-1)
                return values.reshape(*_as_3d(values.shape[:-1]), 3)
            return values.reshape(_as_3d(values.shape))
        import SimpleITK as sitk  # noqa: N813, PLC0415 - its customary name; see above

        with _itk_name(path) as name:
            image = sitk.ReadImage(name)
        values = np.asarray(sitk.GetArrayFromImage(image))  # (slice, row, column[, channel])
        if image.GetDimension() == 2:
            values = values[None]
        if values.ndim == 4:
            return np.moveaxis(values, (0, 1, 2), (2, 1, 0))[..., :3]
        return np.transpose(values, (2, 1, 0))
    except InputError:
        raise
    except MemoryError as error:
        raise InputError("out of memory for the volume", reason=Reason.OUT_OF_MEMORY) from error
    except Exception as error:
        raise InputError(
            f"the voxels cannot be read ({type(error).__name__}); copy the file again",
            reason=Reason.TRUNCATED if isinstance(error, (EOFError, OSError)) else Reason.CORRUPT,
        ) from error


def voxel_file(path: Path) -> Path | None:
    """Return the voxel file of a header (`a.hdr`); None for other files.

    Raises:
        OSError: the file cannot be read.
    """
    lower = path.name.lower()
    ending = next((each for each in reversed(_PAIR_HEADERS) if lower.endswith(each)), None)
    if ending is None:
        return None
    from sam2unet_core.media.nifti import beside, is_header  # noqa: PLC0415 - see above

    found = beside(path, ending, ending.replace("hdr", "img"))
    return found if found is not None and is_header(path) else None


def companions(path: Path) -> tuple[Path, ...]:
    """Return the other files of a volume: the header of a pair, or detached voxels."""
    lower = path.name.lower()
    if lower.endswith(PAIR_SUFFIXES):
        from sam2unet_core.media.nifti import header_file  # noqa: PLC0415 - see above

        return (header_file(path),)
    if not lower.endswith((".mhd", ".nhdr")):
        return ()
    text = path.read_bytes()[:_MAX_TEXT].decode("utf-8", "surrogateescape")
    named = re.findall(r"^(?:ElementDataFile\s*=|data ?file:)\s*(\S.*?)\s*$", text, re.M | re.I)
    found = (path.parent / os.path.basename(name) for name in named)  # noqa: PTH119
    return tuple(each for each in found if each.is_file())


def is_pair(path: Path) -> bool:
    """Whether a file (`a.img`) holds the voxels of a NIfTI or Analyze pair.

    Raises:
        OSError: the header cannot be read.
    """
    if not path.name.lower().endswith(PAIR_SUFFIXES):
        return False
    from sam2unet_core.media.nifti import header_file, is_header  # noqa: PLC0415 - see above

    try:
        return is_header(header_file(path))
    except InputError:
        return False


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((*NIFTI_SUFFIXES, *PAIR_SUFFIXES))


def _nifti(path: Path) -> tuple[VolumeHeader, int]:
    from sam2unet_core.media.nifti import read_nifti  # noqa: PLC0415 - see above

    found = read_nifti(path)
    zooms = found.zooms_mm
    header = VolumeHeader(
        shape=_as_3d(found.shape),
        colour=bool(found.dtype.names),
        affine=None if found.affine is None else _RAS_TO_LPS @ found.affine,
        spacing_mm=None if zooms is None else (zooms[1], zooms[0]),
        shown=found.shown,
        nifti=found,
        cautions=found.cautions,
        warnings=found.warnings,
    )
    return header, found.dtype.itemsize


def _itk(path: Path) -> tuple[VolumeHeader, int]:
    import SimpleITK as sitk  # noqa: N813, PLC0415 - its customary name; see above

    reader = sitk.ImageFileReader()
    with _itk_name(path) as name:
        reader.SetFileName(name)
        reader.ReadImageInformation()
    size = reader.GetSize()
    shape = _as_3d(size)
    channels = reader.GetNumberOfComponents()
    if channels not in (1, 3, 4):
        raise InputError(
            f"{channels} values per voxel; expected 1 or RGB", reason=Reason.INCONSISTENT_GEOMETRY
        )
    pitch = reader.GetSpacing()
    axes = min(3, len(size))
    affine = np.eye(4)
    direction = np.reshape(reader.GetDirection(), (len(size), len(size)))[:axes, :axes]
    affine[:axes, :axes] = direction * np.array(pitch[:axes])
    affine[:axes, 3] = reader.GetOrigin()[:axes]
    stated = reader.HasMetaDataKey("NRRD_space") or not path.name.lower().endswith(_NRRD)
    cautions = () if stated else (_ASSUMED_SPACE,)
    header = VolumeHeader(
        shape, channels > 1, affine, (pitch[1], pitch[0]), axes, cautions=cautions
    )
    return header, 8 * channels


@contextmanager
def _itk_name(path: Path) -> Iterator[str]:
    """Yield a name in UTF-8; other bytes would crash ITK.

    Raises:
        InputError: the name is not UTF-8, and the file refers to others beside it.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        if path.name.lower().endswith(_NEEDS_OTHER_FILES):
            message = "its name is not UTF-8, so the voxels beside it cannot be found; rename it"
            raise InputError(message) from error
    else:
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, f"volume{path.suffix.lower()}")
        link.symlink_to(path.absolute())
        yield str(link)


def _as_3d(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return a shape with three axes; raise InputError for more, as in a time series."""
    if len(shape) < 2 or any(n != 1 for n in shape[3:]) or min(shape) < 1:
        raise InputError(
            f"shape {' x '.join(str(n) for n in shape)}: a time series or several volumes in one "
            "file; save each volume as a file of its own",
            reason=Reason.INCONSISTENT_GEOMETRY,
        )
    first, second, third = (*shape, 1)[:3]
    return (int(first), int(second), int(third))


def _geometry(header: VolumeHeader) -> tuple[Geometry | None, tuple[Caution, ...]]:
    """Return the geometry of the slices; None, with a caution if the affine is invalid."""
    if header.affine is None or header.axes < 3:
        return None, ()
    affine = header.affine
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    steps = np.arange(header.shape[2])[:, None]
    try:
        if not (np.isfinite(affine).all() and (lengths > 0).all()):
            raise GeometryError("axes without length, or not finite")
        return Geometry(
            positions=affine[:3, 3] + steps * affine[:3, 2],
            row_cosine=affine[:3, 0] / lengths[0],
            column_cosine=affine[:3, 1] / lengths[1],
            spacing_mm=(float(lengths[1]), float(lengths[0])),
            thickness_mm=float(lengths[2]),
        ), ()
    except GeometryError:
        message = (
            "the axes do not form a rectangular grid (not orthogonal, without length or not "
            "finite): areas are in pixels, and the volume cannot be resliced"
        )
        return None, (Caution("geometry_ignored", message),)
