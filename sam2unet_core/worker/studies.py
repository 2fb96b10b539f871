"""Studies that requests give by path: their series and frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2unet_core.errors import InputError, Reason
from sam2unet_core.files import without_names
from sam2unet_core.inputs import find_inputs
from sam2unet_core.media.planes import Plane, reslice
from sam2unet_core.protocol import ProtocolError
from sam2unet_core.types import Frame, Rejection, Series, Skipped
from sam2unet_core.worker.roots import Roots
from sam2unet_core.worker.warned import MOST, WarningLog

Check = Callable[[], None]
"""Raises CancelledError if the request was cancelled."""


@dataclass(frozen=True)
class Found:
    """The content of a path.

    Attributes:
        series: the series, in the order of their index in requests.
        skipped: number of skipped files by reason.
        reasons: the distinct reasons in words, at most 50.
    """

    series: tuple[Series, ...]
    skipped: dict[str, int]
    reasons: tuple[str, ...] = ()


class Studies:
    """Opens the paths in requests; keeps the series of the last path until its files change.

    Args:
        roots: the allowed folders.
    """

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._last: tuple[tuple[object, ...], Found] | None = None
        self.paths: tuple[Path, ...] = ()

    def forget_paths(self) -> None:
        """Forget the paths of the last request."""
        self.paths = ()

    def file(self, text: str) -> Path:
        """Return an allowed path and remember that its name must not be sent.

        Raises:
            ProtocolError: `not_allowed` or `not_found`.
        """
        self.paths = (*self.paths, Path(text))
        return self._roots.allowed(text)

    def scan(self, text: str, *, again: bool = False, check: Check) -> Found:
        """Return the series at a path.

        Args:
            text: file or folder.
            again: scan again even if the path has not changed.
            check: called between files.

        Raises:
            ProtocolError: `not_allowed` or `not_found`.
        """
        path = self.file(text)
        status = path.stat()
        # size and coarse time may stay the same when a file is replaced, so add its inode
        key = (str(path), status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns)
        if again or self._last is None or self._last[0] != key:
            if path.is_dir():
                self._roots.check_tree(path)
            self._last = (key, _scan(path, check))
        found = self._last[1]
        files = [instance.path for each in found.series for instance in each.instances]
        self.paths = (*self.paths, *files)
        return found

    def series(self, text: str, index: int, *, check: Check) -> Series:
        """Return one series at a path and check that its files are allowed.

        Raises:
            ProtocolError: `not_allowed`, or `not_found` if there is no series of that index.
        """
        scanned = self.scan(text, check=check)
        found = scanned.series
        if index >= len(found):
            why = "; ".join((f"series {index} of {len(found)} at that path", *scanned.reasons[:3]))
            raise ProtocolError("not_found", why, "inspect the path")
        for instance in found[index].instances:
            self._roots.allowed(str(instance.path.absolute()))
        return found[index]


class Reader:
    """Reads a series in pieces; a piece that follows the last one continues its decoding.

    Otherwise each piece of a video would be decoded from the start of the video.
    """

    def __init__(self) -> None:
        self._series: Series | None = None
        self._next, self._step = 0, 1
        self._frames: Iterator[Frame] = iter(())

    def frames(self, series: Series, chosen: range) -> Iterator[Frame]:
        """Yield the frames of a range; `Frame.index` counts from the start of the series.

        Raises:
            InputError: a frame cannot be decoded.
        """
        follows = (chosen.start, chosen.step) == (self._next, self._step)
        if series is not self._series or not follows:
            rest = range(chosen.start, series.frame_count, chosen.step)
            self._series, self._frames = series, series.frames(indices=rest)
        self._next = -1  # until this piece is done, so that decoding restarts after an error
        for _ in chosen:
            frame = next(self._frames, None)
            if frame is None:
                return
            yield frame
        self._next, self._step = chosen.start + len(chosen) * chosen.step, chosen.step
        if self._next >= series.frame_count:
            self.close()

    def close(self) -> None:
        """Close the file."""
        self._series, self._frames = None, iter(())


def reduced(pixels: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Return a picture in which each pixel is the mean of a square of `scale` x `scale` pixels.

    Args:
        pixels: `(H, W, 3)` uint8 RGB.
        scale: from 1. The squares at the right and bottom edges may be incomplete.

    Returns:
        `(ceil(H / scale), ceil(W / scale), 3)` uint8 RGB.
    """
    if scale == 1:
        return pixels
    return np.asarray(Image.fromarray(pixels).reduce(scale))


def in_plane(series: Series, plane: str | None) -> Series:
    """Return the series reformatted to a patient plane; unchanged if `plane` is None.

    Raises:
        InputError: it cannot be reformatted.
    """
    return series if plane is None else reslice(series, cast(Plane, plane))


def describe(series: Series, *, index: int, rejection: Rejection | None) -> dict[str, Any]:
    """Return the description of a series in the result of `inspect`."""
    return {
        "index": index,
        "kind": series.kind,
        "modality": series.modality,
        "sop_class_uid": series.sop_class_uid,
        "photometric": series.photometric,
        "description": series.description[:200],
        "rows": series.rows,
        "columns": series.columns,
        "frames": series.frame_count,
        "frames_per_second": series.frames_per_second,
        "series_uid": series.series_uid,
        "study_uid": series.study_uid,
        "fits": rejection is None,
        "why_not": rejection and rejection.message,
        "warnings": WarningLog(series, whole=True).to_list(),
    }


def source_of(series: Series) -> dict[str, Any]:
    """Return the identifiers of a series; null for media other than DICOM."""
    return {
        "sop_class_uid": series.sop_class_uid,
        "sop_instance_uid": series.instances[0].sop_instance_uid,
        "study_uid": series.study_uid,
        "series_uid": series.series_uid,
        "modality": series.modality,
        "kind": series.kind,
    }


def _reason(skipped: Skipped) -> str:
    """Return why a file was skipped, without its name."""
    if skipped.reason == Reason.NOT_AN_IMAGE and _is_archive(skipped.path):
        return "an archive; unpack it first, and give its folder"
    return without_names(skipped.message, [skipped.path])


def _is_archive(path: Path) -> bool:
    from sam2unet_core.archives import archive_kind  # noqa: PLC0415 - after the greeting

    try:
        return path.is_file() and archive_kind(path) is not None
    except InputError:  # an unsupported kind of archive
        return True
    except OSError:
        return False


def _scan(path: Path, check: Check) -> Found:
    series: list[Series] = []
    skipped: Counter[str] = Counter()
    reasons: dict[str, None] = {}
    for found in find_inputs([path]):
        check()
        if isinstance(found, Skipped):
            skipped[found.reason] += 1
            reasons[_reason(found)] = None
        else:
            series.append(found)
    return Found(tuple(series), dict(skipped), tuple(reasons)[:MOST])
