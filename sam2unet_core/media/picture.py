"""A plain image file as a series of one frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from sam2unet_core.errors import DataError, InputError
from sam2unet_core.media.image import read_image
from sam2unet_core.task import Window
from sam2unet_core.types import Frame, Instance, OnError, Series, Skipped

if TYPE_CHECKING:
    from pydicom import Dataset

_EXIF_ORIENTATION = 0x0112


def picture_series(path: Path, *, source_path: Path, relative: str) -> Series | Skipped:
    """Describe an image file from its header; one that is none comes back as skipped."""
    try:
        if not path.stat().st_size:
            return Skipped(path, "truncated", f"{path.name}: the file is empty", relative)
        with Image.open(path) as image:
            columns, rows = image.size
            if _orientation(image) >= 5:  # lies on its side
                columns, rows = rows, columns
    except Image.DecompressionBombError:
        return Skipped(path, "too_large", f"{path.name}: too many pixels to open safely", relative)
    except UnidentifiedImageError:
        message = f"{path.name}: named like an image, but its content is none"
        return Skipped(path, "corrupt", message, relative)
    except Exception as error:  # decoders fail in many ways on broken headers
        message = f"{path.name}: cannot be opened ({type(error).__name__})"
        return Skipped(path, "corrupt", message, relative)
    return Series(
        kind="images",
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
        self, series: Series, *, window: Window | None, stride: int, on_error: OnError | None
    ) -> Iterator[Frame]:
        """Yield the frame; the grey window does not apply to plain images."""
        path = series.instances[0].path
        try:
            pixels = read_image(path)
        except (DataError, OSError, MemoryError) as error:
            named = InputError(f"{path.name}: {_text(error, path)}", reason=_reason(error))
            if on_error is None:
                raise named from error
            on_error(0, named)
        else:
            yield Frame(pixels, 0, 0, 1)

    def dataset(self, series: Series, instance_index: int) -> Dataset | None:
        """Return None: an image file has no DICOM header."""
        return None


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation without decoding the pixels, as asking a PNG for it would."""
    exif = image.getexif() if image.format != "PNG" else Image.Exif()
    if image.format == "PNG" and "exif" in image.info:
        exif.load(image.info["exif"])
    return int(exif.get(_EXIF_ORIENTATION, 1))


def _text(error: Exception, path: Path) -> str:
    return str(error).replace(f"{path}: ", "").replace(str(path), path.name)


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "out_of_memory"
    text = str(error)
    if "too large" in text:
        return "too_large"
    return "truncated" if "truncated" in text else "corrupt"
