"""Open image files: decoded, upright, with the properties of their samples.

Pillow decodes, but keeps only 8 bits of 16-bit colours: those of a PNG are decoded by OpenCV and
compared with Pillow's, those of a TIFF by `media.tiff`. Files are opened as streams, since Pillow
memory-maps a TIFF given by name and then applies the orientation wrongly.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from sam2unet_core.errors import DataError
from sam2unet_core.media.headers import (
    UPRIGHT,
    WHITE_IS_ZERO,
    PngHeader,
    WatchedFile,
    deep_samples,
    deep_tags,
    formats_by_content,
    is_lossy,
    is_truncated,
    is_truncated_tiff,
    jpeg2000_depth,
    largest_pnm_value,
    png_header,
    png_without_text,
    unsupported_depth,
)

SUPPORTED_FORMATS = "PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000, AVIF or PNM"
T = TypeVar("T")


@dataclass(frozen=True)
class OpenedImage:
    """A decoded image file.

    Attributes:
        image: Pillow's image, upright; 8 bits if `deep` is not None.
        deep: samples of more than 8 bits, upright, 0 black: `(H, W)` grey, or `(H, W, 3)` RGB or
            `(H, W, 4)` RGBA uint16 (grey with transparency has three equal channels); else None.
        full_scale: largest possible sample value: 255, 65535, 3 for 2 bits.
        stated_bits: number of significant bits that the file states, or None.
        white_is_zero: the file stores white as 0; in `image` and `deep` white is high.
        lossy: the pixels were compressed with loss.
        transparent: the grey, colour or palette entries that a PNG or GIF marks as transparent.
    """

    image: Image.Image
    deep: NDArray[np.integer[Any]] | None
    full_scale: int
    stated_bits: int | None
    white_is_zero: bool
    lossy: bool
    transparent: Any

    @property
    def grey_deep(self) -> bool:
        """Whether it is grey with more than 8 bits."""
        return self.deep is not None and self.deep.ndim == 2


class TruncatedError(DataError):
    """A truncated image file."""


def open_image(path: Path) -> OpenedImage:
    """Decode an image file.

    Raises:
        TruncatedError: it is empty or truncated.
        DataError: missing, unreadable, too large, several frames, or floating point.
    """
    return _read_with_fallback(path, lambda stream: _decoded(path, stream))


def upright_size(path: Path) -> tuple[int, int]:
    """Return (columns, rows) of the upright image, from the header alone.

    Raises:
        TruncatedError: the file is empty or ends within its header.
        DataError: not an image that can be read, or too large.
    """
    return _read_with_fallback(path, lambda stream: _size(path, stream))


def _read_with_fallback(path: Path, read: Callable[[IO[bytes]], T]) -> T:
    """Read a file; a PNG with more text than Pillow accepts is read without its text."""
    with _named_errors(path), path.open("rb") as stream:
        if not stream.read(1):
            raise TruncatedError(f"{path}: the file is empty (0 bytes)")
        stream.seek(0)
        try:
            return read(stream)
        except ValueError:
            content = png_without_text(path)
            if content is None:
                raise
            return read(io.BytesIO(content))


def _decoded(path: Path, stream: IO[bytes]) -> OpenedImage:
    with _recognised(path, stream) as image:
        if image is None:
            return _open_deep_tiff(path)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":
            raise DataError(f"{path}: holds {frames} frames; save each as a file of its own")
        tags = _tiff_tags(image)
        image.load()
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
        ImageOps.exif_transpose(image, in_place=True)  # without it, upright images are copied
        if image.format == "PNG":
            return _open_png(path, image, png_header(path), orientation)
        return _open_other(path, image, tags)


def _size(path: Path, stream: IO[bytes]) -> tuple[int, int]:
    with _recognised(path, stream) as image:
        if image is None:
            tags = deep_tags(path)
            columns, rows = int(tags[256]), int(tags[257])
            rotated = int(tags.get(274, 1)) >= 5
        else:
            (columns, rows), rotated = image.size, _orientation(image) >= 5
            tags = _tiff_tags(image)
            if tags:  # Pillow may have swapped the size already
                rotated = rotated and (columns, rows) == (tags.get(256), tags.get(257))
        return (rows, columns) if rotated else (columns, rows)


@contextmanager
def _recognised(path: Path, stream: IO[bytes]) -> Iterator[Image.Image | None]:
    """Yield Pillow's image, or None for a TIFF that only `media.tiff` reads."""
    try:
        image = Image.open(stream)
    except UnidentifiedImageError:
        if not deep_tags(path):
            raise
        yield None
        return
    with image:
        yield image


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turn decoder errors into one error that names the file and the reason."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # decoders fail in many ways on broken input
        if _is_truncated(path, error):
            message = f"{path}: cannot be decoded (truncated); copy it again"
            raise TruncatedError(message) from error
        raise DataError(f"{path}: {_reason(error)}") from error


def _is_truncated(path: Path, error: Exception) -> bool:
    """Whether a decoder failed because the file is truncated."""
    if isinstance(error, Image.DecompressionBombError | FileNotFoundError | MemoryError):
        return False
    if "truncated" in str(error).lower() or isinstance(error, EOFError):
        return True
    try:
        formats = formats_by_content(path)
        if not formats or is_truncated(path) or is_truncated_tiff(path):
            return bool(formats)
        with WatchedFile(path) as stream:
            try:
                Image.open(stream, formats=formats)
            except Exception:  # the same error; only how far it read matters
                return stream.read_past_end
    except OSError:  # it cannot even be opened
        pass
    return False


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return f"not a supported image ({SUPPORTED_FORMATS})"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large to open safely ({error}); crop it or scale it down"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it; crop it or scale it down"
    return f"cannot be decoded ({type(error).__name__}: {error}); export or copy it again"


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; for a PNG, without `getexif`, which decodes the pixels."""
    exif = image.getexif() if image.format != "PNG" else Image.Exif()
    if image.format == "PNG" and "exif" in image.info:
        exif.load(image.info["exif"])
    return int(exif.get(ExifTags.Base.Orientation, 1))


def _open_png(path: Path, image: Image.Image, header: PngHeader, orientation: int) -> OpenedImage:
    deep = None
    if header.bits == 16:
        deep = _grey(image, path) if header.grey else _deep_colours(path, image, orientation)
    return OpenedImage(
        image,
        deep,
        full_scale=2**header.bits - 1,
        stated_bits=header.significant_bits,
        white_is_zero=False,
        lossy=False,
        transparent=image.info.get("transparency"),
    )


def _open_other(path: Path, image: Image.Image, tags: dict[int, Any]) -> OpenedImage:
    """Return a TIFF (it has tags) or a file in another format than PNG."""
    deep: NDArray[np.integer[Any]] | None
    largest = _largest(path, image)
    if largest > 255 or (image.format == "PPM" and image.mode != "F"):
        deep = _all_bits(path, image, largest) if largest > 255 else None
        return OpenedImage(image, deep, largest, None, False, is_lossy(path, image), None)
    bits = max(tags.get(258, (8,)))
    white_is_zero = tags.get(262) == WHITE_IS_ZERO
    deep = None
    full_scale = 2 ** min(bits, 16) - 1
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        deep = _grey(image, path)
        signed = 2 in tags.get(339, ())
        full_scale = 2 ** (min(bits, 16) - signed) - 1 if tags else 65535
        full_scale = 65535 if bits > 16 else full_scale
        if white_is_zero:
            deep = full_scale - deep
    elif bits > 8:
        deep = deep_samples(path, tags)
    return OpenedImage(
        image,
        deep,
        full_scale=full_scale,
        stated_bits=_stated_bits(tags),
        white_is_zero=white_is_zero,
        lossy=is_lossy(path, image),
        transparent=image.info.get("transparency"),
    )


def _largest(path: Path, image: Image.Image) -> int:
    """Return the largest sample of a PNM or JPEG 2000 file; 255 for other formats."""
    if image.format == "JPEG2000":
        return (1 << max(8, jpeg2000_depth(path))) - 1
    return largest_pnm_value(path) if image.format == "PPM" else 255


def _all_bits(path: Path, image: Image.Image, largest: int) -> NDArray[np.integer[Any]]:
    """Return all bits of a PNM or JPEG 2000 file, which Pillow scales to 8 or 16.

    Pillow also overflows the brightest colours of JPEG 2000 from 255 to 0.
    """
    if image.format == "PPM" and image.mode != "RGB":
        greys: NDArray[np.int32] = np.rint(_grey(image, path) * (largest / 65535)).astype(np.int32)
        return greys
    found: NDArray[Any] | None
    if image.format == "PPM":
        read = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        found = None if read is None or read.ndim != 3 else read[..., ::-1]
    else:
        import imagecodecs  # noqa: PLC0415 - takes a tenth of a second, and few files need it

        found = np.asarray(imagecodecs.jpeg2k_decode(path.read_bytes()))
    shown = np.asarray(image)
    if found is not None and found.dtype == np.uint16 and found.shape == shown.shape:
        scale = 65535 if shown.dtype == np.uint16 else 255
        off = np.abs(found * (scale / largest) - shown.astype(np.float64))
        if (off[shown > 0] <= scale / 255 + 1).all():
            return np.ascontiguousarray(found)
    raise unsupported_depth(path)


def _tiff_tags(image: Image.Image) -> dict[int, Any]:
    """Return the tags of a TIFF; empty for other formats."""
    return dict(image.tag_v2) if isinstance(image, TiffImagePlugin.TiffImageFile) else {}


def _stated_bits(tags: dict[int, Any]) -> int | None:
    """Return the number of bits of the maximum sample value that a TIFF states, or None."""
    largest = tags.get(341, tags.get(281))  # SMaxSampleValue, MaxSampleValue
    largest = max(largest) if isinstance(largest, tuple) else largest
    return int(largest).bit_length() if isinstance(largest, int) and largest > 255 else None


def _grey(image: Image.Image, path: Path) -> NDArray[np.int32]:
    """Return greys of more than 8 bits, `(H, W)` from 0 to 65535."""
    values = np.array(image)
    if image.mode == "F":
        raise DataError(f"{path}: floating-point pixels have no defined range; save 8 or 16 bits")
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low < 0 or high > 65535:
        raise DataError(f"{path}: values from {low} to {high}; save as 8 or 16 bits unsigned")
    return values.astype(np.int32)


def _deep_colours(path: Path, image: Image.Image, orientation: int) -> NDArray[np.uint16]:
    """Return `(H, W, 3)` or `(H, W, 4)` 16-bit samples, whose high bytes equal Pillow's."""
    found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    shown = np.asarray(image)
    if found is not None and found.dtype == np.uint16 and found.ndim == 3:
        channels = min(found.shape[2], shown.shape[2]) if shown.ndim == 3 else 0
        turn = UPRIGHT.get(orientation, np.asarray)
        deep: NDArray[np.uint16] = np.array(turn(found[..., [2, 1, 0, 3][:channels]]), np.uint16)
        if deep.shape == shown.shape and np.array_equal(deep >> 8, shown):
            return deep
    raise unsupported_depth(path)


def _open_deep_tiff(path: Path) -> OpenedImage:
    """Decode a TIFF that Pillow does not support."""
    tags = deep_tags(path)
    deep = deep_samples(path, tags)
    full_scale = 2 ** max(tags[258]) - 1
    image = Image.fromarray(np.rint(deep * (255 / full_scale)).astype(np.uint8))
    white_is_zero = tags[262] == WHITE_IS_ZERO
    return OpenedImage(image, deep, full_scale, _stated_bits(tags), white_is_zero, False, None)
