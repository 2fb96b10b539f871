"""A plain image file as a series of one frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sam2unet_core.errors import DataError, InputError, Reason
from sam2unet_core.media.image import read_picture
from sam2unet_core.media.opening import TruncatedError, upright_size
from sam2unet_core.task import Window
from sam2unet_core.types import Frame, Indices, Instance, Kind, OnError, Series, Skipped

if TYPE_CHECKING:
    from pydicom import Dataset


def picture_series(path: Path, *, source_path: Path, relative: str) -> Series | Skipped:
    """Describe an image file from its header; a file that is not an image is skipped."""
    try:
        columns, rows = upright_size(path)
    except (DataError, OSError) as error:
        message = f"{path.name}: {_text(error, path)}"
        return Skipped(path, _reason(error), message, relative)
    return Series(
        kind=Kind.IMAGES,
        instances=(Instance(path),),
        source=PictureSource(),
        source_path=source_path,
        relative=relative,
        rows=rows,
        columns=columns,
        frame_count=1,
    )


class PictureSource:
    """Reads the one frame of an image file."""

    def frames(
        self, series: Series, *, indices: Indices, window: Window | None, on_error: OnError | None
    ) -> Iterator[Frame]:
        """Yield the frame; a caution reports that the grey window does not apply."""
        if indices is not None and 0 not in indices:
            return
        path = series.instances[0].path
        try:
            picture = read_picture(path, window=window)
        except (DataError, OSError, MemoryError) as error:
            named = InputError(f"{path.name}: {_text(error, path)}", reason=_reason(error))
            if on_error is None:
                raise named from error
            on_error(0, named)
        else:
            yield Frame(picture.pixels, 0, 0, 1, cautions=picture.cautions)

    def dataset(self, series: Series, instance_index: int) -> Dataset | None:
        """Return None: an image file has no DICOM header."""
        return None


def _text(error: Exception, path: Path) -> str:
    return str(error).replace(f"{path}: ", "").replace(str(path), path.name)


def _reason(error: Exception) -> Reason:
    if isinstance(error, MemoryError):
        return Reason.OUT_OF_MEMORY
    if isinstance(error, TruncatedError):
        return Reason.TRUNCATED
    return Reason.TOO_LARGE if "too large" in str(error) else Reason.CORRUPT
