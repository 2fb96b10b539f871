"""Image files opened: decoded, upright, with what the file says of its samples.

Pillow decodes; it keeps 8 bits of colours of 16, so those are decoded by OpenCV and compared with
what Pillow sees. Files are opened as streams: Pillow maps a TIFF that it is given by name, and
turns such a picture wrongly.
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
    PngHeader,
    WatchedFile,
    begins_like_an_image,
    is_lossy,
    largest_pnm_value,
    overruns,
    png_header,
    png_without_text,
)

READ = "PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000, AVIF or PNM"
T = TypeVar("T")
Turn = Callable[[NDArray[Any]], NDArray[Any]]
_WHITE_IS_ZERO = 0
_UNSIGNED = 1
_UPRIGHT: dict[int, Turn] = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p, 1),
}
"""How stored pixels are turned, by EXIF orientation."""


@dataclass(frozen=True)
class Opened:
    """A decoded image file.

    Attributes:
        image: what Pillow makes of it, upright; 8 bits where `deep` is not None.
        deep: samples of more than 8 bits, upright, 0 black: `(H, W)` grey, or `(H, W, 3)` RGB or
            `(H, W, 4)` RGBA uint16 (grey with transparency has three equal channels); else None.
        full_scale: largest value that a stored sample can have: 255, 65535, 3 for 2 bits.
        stated_bits: how many bits of a sample the file says to be significant, or None.
        white_is_zero: the file stores white as 0; `image` and `deep` show it as white.
        lossy: the pixels went through a compression that does not keep them.
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
        """Whether it is grey of more than 8 bits."""
        return self.deep is not None and self.deep.ndim == 2


class TruncatedError(DataError):
    """An image file that ends early."""


def open_image(path: Path) -> Opened:
    """Decode an image file.

    Raises:
        TruncatedError: it is empty or ends early.
        DataError: missing, unreadable, too large, several frames, or floating point.
    """
    return _whatever_its_text(path, lambda stream: _decoded(path, stream))


def upright_size(path: Path) -> tuple[int, int]:
    """Return (columns, rows) as `open_image` will give them, from the header alone.

    Raises:
        TruncatedError: the file is empty or ends within its header.
        DataError: not an image that can be read, or too large.
    """
    return _whatever_its_text(path, lambda stream: _size(path, stream))


def _whatever_its_text(path: Path, read: Callable[[IO[bytes]], T]) -> T:
    """Read a file; a PNG whose text is longer than Pillow takes is read without its text."""
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


def _decoded(path: Path, stream: IO[bytes]) -> Opened:
    with _recognised(path, stream) as image:
        if image is None:
            return _deep_tiff(path)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":
            raise DataError(f"{path}: holds {frames} frames; save each as a file of its own")
        tags = _tiff_tags(image)
        image.load()
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
        ImageOps.exif_transpose(image, in_place=True)  # else it copies what lies upright, too
        if image.format == "PNG":
            return _of_png(path, image, png_header(path), orientation)
        return _of_other(path, image, tags)


def _size(path: Path, stream: IO[bytes]) -> tuple[int, int]:
    with _recognised(path, stream) as image:
        if image is None:
            tags = _deep_white_tags(path)
            columns, rows = int(tags[256]), int(tags[257])
            turned = int(tags.get(274, 1)) >= 5
        else:
            (columns, rows), turned = image.size, _orientation(image) >= 5
        return (rows, columns) if turned else (columns, rows)


@contextmanager
def _recognised(path: Path, stream: IO[bytes]) -> Iterator[Image.Image | None]:
    """Give Pillow's image, or None for a TIFF that only OpenCV reads."""
    try:
        image = Image.open(stream)
    except UnidentifiedImageError:
        if not _deep_white_tags(path):
            raise
        yield None
        return
    with image:
        yield image


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turn whatever decoders raise into one error that names the file and the reason."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # decoders fail in many ways on broken input
        if _ends_early(path, error):
            message = f"{path}: cannot be decoded (truncated: the file ends early); copy it again"
            raise TruncatedError(message) from error
        raise DataError(f"{path}: {_reason(error)}") from error


def _ends_early(path: Path, error: Exception) -> bool:
    """Whether a decoder failed since there was no more to read."""
    if isinstance(error, Image.DecompressionBombError | FileNotFoundError | MemoryError):
        return False
    if "truncated" in str(error).lower() or isinstance(error, EOFError):
        return True
    try:
        if not begins_like_an_image(path) or overruns(path):
            return begins_like_an_image(path)
        with WatchedFile(path) as stream:
            try:
                Image.open(stream)
            except Exception:  # the same again; what matters is how far it read
                return stream.ran_out
    except OSError:  # it cannot even be opened
        pass
    return False


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image that can be read ({READ} are)"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large to open safely ({error}); crop it or scale it down"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it; crop it or scale it down"
    return f"cannot be decoded ({type(error).__name__}: {error}); export or copy it again"


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation without decoding the pixels, as asking a PNG for it would."""
    exif = image.getexif() if image.format != "PNG" else Image.Exif()
    if image.format == "PNG" and "exif" in image.info:
        exif.load(image.info["exif"])
    return int(exif.get(ExifTags.Base.Orientation, 1))


def _of_png(path: Path, image: Image.Image, header: PngHeader, orientation: int) -> Opened:
    deep = None
    if header.bits == 16:
        deep = _grey(image, path) if header.grey else _deep_colours(path, image, orientation)
    return Opened(
        image,
        deep,
        full_scale=2**header.bits - 1,
        stated_bits=header.significant_bits,
        white_is_zero=False,
        lossy=False,
        transparent=image.info.get("transparency"),
    )


def _of_other(path: Path, image: Image.Image, tags: dict[int, Any]) -> Opened:
    """Return a TIFF (it has tags) or a file of another format."""
    bits = max(tags.get(258, (8,)))
    white_is_zero = tags.get(262) == _WHITE_IS_ZERO
    deep: NDArray[np.integer[Any]] | None = None
    full_scale = 2 ** min(bits, 16) - 1
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        deep = _grey(image, path)
        signed = 2 in tags.get(339, ())
        full_scale = 2 ** (min(bits, 16) - signed) - 1 if tags else 65535
        full_scale = 65535 if bits > 16 else full_scale
        if white_is_zero:
            deep = full_scale - deep
    elif bits > 8:
        deep = _deep_colours(path, image, orientation=1)  # OpenCV turns a TIFF by itself
    elif image.format == "PPM":
        full_scale = min(255, largest_pnm_value(path))
    return Opened(
        image,
        deep,
        full_scale=full_scale,
        stated_bits=_stated_bits(tags),
        white_is_zero=white_is_zero,
        lossy=is_lossy(path, image),
        transparent=image.info.get("transparency"),
    )


def _tiff_tags(image: Image.Image) -> dict[int, Any]:
    """Return the tags of a TIFF; empty for other formats."""
    return dict(image.tag_v2) if isinstance(image, TiffImagePlugin.TiffImageFile) else {}


def _stated_bits(tags: dict[int, Any]) -> int | None:
    """Return the bits that hold what a TIFF gives as its largest sample; the tag is seldom set."""
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
    """Return `(H, W, 3)` or `(H, W, 4)` samples of 16 bits; their high bytes are Pillow's."""
    found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    shown = np.asarray(image)
    if found is not None and found.dtype == np.uint16 and found.ndim == 3:
        channels = min(found.shape[2], shown.shape[2]) if shown.ndim == 3 else 0
        turn: Turn = _UPRIGHT.get(orientation, np.asarray)
        deep: NDArray[np.uint16] = np.array(turn(found[..., [2, 1, 0, 3][:channels]]), np.uint16)
        if deep.shape == shown.shape and np.array_equal(deep >> 8, shown):
            return deep
    raise DataError(
        f"{path}: colours of more than 8 bits, stored in a way that is not read; save it with 8 "
        "bits, or as PNG"
    )


def _deep_white_tags(path: Path) -> dict[int, Any]:
    """Return the tags of a TIFF in 16 bits with white as zero; empty for any other file."""
    try:
        with path.open("rb") as stream:
            directory = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
            stream.seek(directory.next)
            directory.load(stream)
            tags = dict(directory)
    except Exception:  # whatever it is, it is no such file
        return {}
    unsigned = set(tags.get(339, (_UNSIGNED,))) == {_UNSIGNED}
    grey = tags.get(262) == _WHITE_IS_ZERO and tags.get(277, 1) == 1
    sized = isinstance(tags.get(256), int) and isinstance(tags.get(257), int)
    return tags if unsigned and grey and sized and tags.get(258) == (16,) else {}


def _deep_tiff(path: Path) -> Opened:
    """Decode what `_deep_white_tags` has found."""
    tags = _deep_white_tags(path)
    if int(tags[256]) * int(tags[257]) > 2 * (Image.MAX_IMAGE_PIXELS or np.inf):
        raise Image.DecompressionBombError(f"{tags[256]} x {tags[257]} pixels")
    found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)  # turned upright
    if found is None or found.dtype != np.uint16 or found.ndim != 2:
        raise DataError(f"{path}: cannot be decoded (TIFF); export or copy it again")
    deep = 65535 - found.astype(np.int32)
    image = Image.fromarray((deep >> 8).astype(np.uint8))
    return Opened(image, deep, 65535, _stated_bits(tags), True, False, None)
