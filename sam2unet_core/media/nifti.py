"""NIfTI-1, NIfTI-2, Analyze and MGH files: header, geometry and voxels.

nibabel reads them. Bad header values for which nibabel refuses a file (a quaternion, an intercept)
are ignored with a caution. Compression is detected by content, and files are passed as streams,
since their names need not be UTF-8.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import nibabel
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from sam2unet_core.errors import InputError, Reason
from sam2unet_core.types import Caution

_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001, 0: 1.0}
"""By NIfTI code of spatial units: metre, millimetre, micrometre, unknown."""
_GZIP = b"\x1f\x8b"
_Analyze = nibabel.spm2analyze.Spm2AnalyzeHeader


@dataclass(frozen=True)
class NiftiFile:
    """The header of a file.

    Attributes:
        header: nibabel's header; `Nifti1Header` and `Nifti2Header` for NIfTI, also of pairs.
        shape: voxels along all axes of the file.
        dtype: of the stored voxels.
        affine: `(4, 4)` index to RAS+ in mm, or None if missing or invalid.
        zooms_mm: voxel size along the first two axes, or None if missing or invalid.
        shown: the (lowest, highest) value to show that the file states, or None.
        unusable: those of `qform` and `sform` that are stated but invalid.
        cautions: what was ignored.
        warnings: other facts that a user should know.
    """

    header: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    affine: NDArray[np.float64] | None
    zooms_mm: tuple[float, float] | None
    shown: tuple[float, float] | None = None
    unusable: frozenset[str] = frozenset()
    cautions: tuple[Caution, ...] = ()
    warnings: tuple[str, ...] = ()
    _data: tuple[Path, int, float, float] | None = field(default=None, repr=False)

    def values(self) -> NDArray[Any]:
        """Read the voxels in the shape of the file, scaled by the header.

        Raises:
            OSError, EOFError, ValueError: the file is truncated or broken.
        """
        if self._data is None:
            raise ValueError("a header without voxels")
        path, offset, slope, inter = self._data
        spec = (self.shape, self.dtype, offset, slope, inter)
        with opened(path) as stream:
            return np.asanyarray(ArrayProxy(stream, spec))


def opened(path: Path) -> IO[bytes]:
    """Open a file for reading, through gzip if its content is compressed."""
    with path.open("rb") as stream:
        packed = stream.read(2) == _GZIP
    return cast("IO[bytes]", gzip.open(path, "rb")) if packed else path.open("rb")


def read_nifti(path: Path) -> NiftiFile:
    """Read a header; for a pair, `path` is the file with the voxels.

    Raises:
        InputError: not such a file, or the header is missing.
        OSError: it cannot be read.
    """
    if path.name.lower().endswith((".mgh", ".mgz")):
        return _mgh(path)
    head = header_file(path)
    with opened(head) as stream:
        start = stream.read(348)
        stream.seek(0)
        kind = _header_class(start)
        if kind is None:
            raise InputError(
                "not a NIfTI or Analyze header" if start else "the file is empty",
                reason=Reason.TRUNCATED if len(start) < 348 else Reason.CORRUPT,
            )
        header = kind.from_fileobj(stream, check=True)
    if kind is _Analyze:
        return _analyze(header, path)
    return _nifti(header, path)


def header_file(path: Path) -> Path:
    """Return the file with the header: `a.hdr` for `a.img`, else the file itself."""
    lower = path.name.lower()
    ending = next((e for e in (".img.gz", ".img") if lower.endswith(e)), None)
    if ending is None:
        return path
    found = beside(path, ending, ending.replace("img", "hdr"))
    if found is None:
        raise InputError(f"its header {path.name[: -len(ending)]}.hdr is missing")
    return found


def beside(path: Path, ending: str, other: str) -> Path | None:
    """Return the file with suffix `other` instead of `ending`, case-insensitively, or None."""
    stem = path.name[: -len(ending)]
    forms = (other, other.upper(), other.removesuffix(".gz"), other.removesuffix(".gz") + ".gz")
    places = [path.with_name(stem + form) for form in forms]
    return next((place for place in places if place.is_file()), None)


def is_header(path: Path) -> bool:
    """Whether a file starts with a NIfTI or Analyze header.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with opened(path) as stream:
            return _header_class(stream.read(348)) is not None
    except (EOFError, gzip.BadGzipFile):
        return False


def _header_class(start: bytes) -> Any:
    if len(start) < 348:
        return None
    sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    if 540 in sizes:
        return nibabel.Nifti2Header if start[4:7] == b"n+2" else nibabel.nifti2.Nifti2PairHeader
    if 348 not in sizes:
        return None
    if start[344:348] == b"n+1\0":
        return nibabel.Nifti1Header
    return nibabel.nifti1.Nifti1PairHeader if start[344:348] == b"ni1\0" else _Analyze


def _mgh(path: Path) -> NiftiFile:
    with opened(path) as stream:
        header = nibabel.freesurfer.mghformat.MGHHeader.from_fileobj(stream)
    zooms = tuple(float(v) for v in header.get_zooms()[:2])
    affine = np.asarray(header.get_affine(), np.float64)
    usable = _usable(affine) is not None
    return NiftiFile(
        header,
        tuple(int(n) for n in header.get_data_shape()),
        header.get_data_dtype(),
        affine if usable else None,
        _positive(zooms),
        cautions=() if usable else (_no_geometry("its axes have no length"),),
        _data=(path, int(header.get_data_offset()), 1.0, 0.0),
    )


def _analyze(header: Any, path: Path) -> NiftiFile:
    slope = header.get_slope_inter()[0]
    zooms = tuple(abs(float(v)) for v in header.get_zooms()[:2])
    return NiftiFile(
        header,
        tuple(int(n) for n in header.get_data_shape()),
        header.get_data_dtype(),
        None,
        _positive(zooms),
        cautions=(_no_geometry("Analyze headers do not state it"),),
        _data=(path, int(header["vox_offset"]), 1.0 if slope is None else float(slope), 0.0),
    )


def _nifti(header: Any, path: Path) -> NiftiFile:
    scale, units = _units(header)
    slope, inter, scaling = _scaling(header)
    shown, display = _shown(header)
    affine, unusable, geometry, warnings = _affine(header)
    if affine is not None:
        affine = np.diag([scale, scale, scale, 1.0]) @ affine
    zooms = tuple(abs(float(v)) * scale for v in (*header.get_zooms(), 1.0, 1.0)[:2])
    return NiftiFile(
        header,
        tuple(int(n) for n in header.get_data_shape()),
        header.get_data_dtype(),
        affine,
        _positive(zooms),
        shown,
        unusable,
        (*units, *scaling, *display, *geometry),
        warnings,
        (path, int(header.get_data_offset()), slope, inter),
    )


def _units(header: Any) -> tuple[float, tuple[Caution, ...]]:
    code = int(header["xyzt_units"]) & 7
    if code in _MILLIMETRES:
        return _MILLIMETRES[code], ()
    message = f"the header's unit of length has the unknown code {code}: millimetres were assumed"
    return 1.0, (Caution("value_ignored", message),)


def _scaling(header: Any) -> tuple[float, float, tuple[Caution, ...]]:
    """Return slope and intercept; a slope of 0 or, in many files, NaN means no scaling."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    unset = slope == 0 or np.isnan(slope)
    if unset and (slope == 0 or not np.isfinite(inter) or inter == 0):
        return 1.0, 0.0, ()
    if np.isfinite(slope) and np.isfinite(inter) and not unset:
        return slope, inter, ()
    message = (
        f"the header scales voxels by {slope:g} and adds {inter:g}: the value that is not finite "
        "was ignored"
    )
    kept = (slope, 0.0) if np.isfinite(slope) else (1.0, 0.0)
    return (*kept, (Caution("value_ignored", message),))


def _shown(header: Any) -> tuple[tuple[float, float] | None, tuple[Caution, ...]]:
    """Return the display range; 0 to 0 means none."""
    low, high = float(header["cal_min"]), float(header["cal_max"])
    if np.isfinite([low, high]).all() and high > low:
        return (low, high), ()
    if low == high == 0:
        return None, ()
    message = (
        f"the header's display range from {low:g} to {high:g} is invalid: the range of the voxels "
        "was used"
    )
    return None, (Caution("value_ignored", message),)


def _affine(
    header: Any,
) -> tuple[NDArray[np.float64] | None, frozenset[str], tuple[Caution, ...], tuple[str, ...]]:
    """Return the sform, else the qform, as stored; which are invalid; cautions and warnings."""
    stated = {name for name in ("sform", "qform") if int(header[f"{name}_code"]) > 0}
    found = {name: _usable(_matrix(header, name)) for name in stated}
    usable = {name: matrix for name, matrix in found.items() if matrix is not None}
    unusable = frozenset(stated - usable.keys())
    if not stated:
        return None, unusable, (_no_geometry("the codes of qform and sform are 0"),), ()
    if not usable:
        why = f"invalid {' and '.join(sorted(unusable))}: axes without length, or not finite"
        return None, unusable, (_no_geometry(why),), ()
    cautions: tuple[Caution, ...] = ()
    if unusable:
        (bad,), (good,) = unusable, usable
        message = f"the header's {bad} is invalid: its {good} was used"
        cautions = (Caution("value_ignored", message),)
    warnings: tuple[str, ...] = ()
    if len(usable) == 2 and not np.allclose(usable["sform"], usable["qform"], rtol=1e-3, atol=1e-2):
        warnings = ("qform and sform of the file differ: sform is used",)
    return usable.get("sform", usable.get("qform")), unusable, cautions, warnings


def _matrix(header: Any, name: str) -> Any:
    try:
        return header.get_sform() if name == "sform" else header.get_qform()
    except (ValueError, ArithmeticError, HeaderDataError):
        return None  # a quaternion longer than 1


def _usable(matrix: Any) -> NDArray[np.float64] | None:
    if matrix is None:
        return None
    found = np.asarray(matrix, np.float64)
    lengths = np.linalg.norm(found[:3, :3], axis=0)
    if not np.isfinite(found).all() or not (lengths > 0).all():
        return None
    volume = abs(float(np.linalg.det(found[:3, :3] / lengths)))
    return found if volume > 1e-6 else None  # else two axes are parallel


def _positive(zooms: tuple[float, ...]) -> tuple[float, float] | None:
    good = len(zooms) == 2 and all(np.isfinite(v) and v > 0 for v in zooms)
    return (zooms[0], zooms[1]) if good else None


def _no_geometry(why: str) -> Caution:
    message = f"the file has no usable position in space ({why}): only its voxel size is used"
    return Caution("geometry_ignored", message)
