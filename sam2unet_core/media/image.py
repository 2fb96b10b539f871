"""Read and write plain image files: frames, masks and probability maps; a file as a series."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sam2unet_core.errors import DataError, InputError, Reason
from sam2unet_core.files import write_bytes
from sam2unet_core.media.depth import stated_scale, to_bytes
from sam2unet_core.media.labels import (
    deep_colours_as_bytes,
    indices_of_white_zero,
    labels_from_greys,
    labels_from_palette,
    labels_from_transparency,
)
from sam2unet_core.media.opening import OpenedImage, TruncatedError, open_image, upright_size
from sam2unet_core.task import TaskClass, Window
from sam2unet_core.types import Caution, Frame, Indices, Instance, Kind, OnError, Series, Skipped

if TYPE_CHECKING:
    from pydicom import Dataset

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".avif"}
    | {".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm"}
)
_GREYS = np.arange(256, dtype=np.float32)
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


@dataclass(frozen=True)
class Picture:
    """A decoded image file.

    Attributes:
        pixels: `(H, W, 3)` uint8 RGB, row-major.
        bits: bits per sample in the file.
        cautions: what was guessed.
    """

    pixels: NDArray[np.uint8]
    bits: int
    cautions: tuple[Caution, ...] = ()


def read_image(path: Path | str) -> NDArray[np.uint8]:
    """Read an image file as `(H, W, 3)` uint8 RGB; see `read_picture`."""
    return read_picture(path).pixels


def read_picture(path: Path | str, *, window: Window | None = None) -> Picture:
    """Read an image file as it was taken, with what was guessed.

    The EXIF orientation and palettes are applied, grey becomes RGB, transparency becomes black.
    Samples of more than 8 bits are scaled by the depth that the file states; see `depth` for those
    that fill only a small part of it.

    Args:
        path: the file.
        window: the task's grey window. It is not applied, since a picture's greys have no unit; for
            pictures of more than 8 bits a caution reports this.

    Raises:
        DataError: missing, unreadable, truncated, too large, several frames, or floating point.
    """
    path = Path(path)
    opened = open_image(path)
    if opened.deep is None:
        return Picture(_rgb(opened.image, path), 8)
    pixels, cautions = to_bytes(
        opened.deep, full_scale=opened.full_scale, stated_bits=opened.stated_bits
    )
    if window is not None:
        message = (
            "the task's grey window was not applied: it is in the modality's units, such as "
            "Hounsfield, and the greys of a picture have none"
        )
        cautions = (*cautions, Caution("window_guessed", message))
    return Picture(
        _over_black(pixels, opened.deep, opened), opened.full_scale.bit_length(), cautions
    )


def read_mask(path: Path | str, classes: Sequence[TaskClass]) -> NDArray[np.uint8]:
    """Read a mask as class indices `(H, W)` uint8, 0 for background.

    Supported are class indices (grey or palette) and palettes or RGB in the colours of the classes.
    For a task of one class also 1-bit images, 0/1, 0/255, greys (split at half of full scale), one
    colour on black, and transparency over one colour. The EXIF orientation is applied.

    Raises:
        DataError: unreadable, or values or colours match no class.
    """
    path = Path(path)
    opened = open_image(path)
    image, name = opened.image, str(path)
    if opened.deep is not None and opened.grey_deep:
        return _labels_from_stored(opened, opened.deep, classes, name=name)
    if opened.deep is not None:
        pixels = deep_colours_as_bytes(opened.deep, classes, name=name)
        return labels_from_transparency(pixels, classes, name=name, lossy=False)
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        alpha = _palette_alpha(opened.transparent, len(palette))
        palette = np.concatenate([palette, alpha[:, None]], axis=1)
        return labels_from_palette(np.array(image), palette, classes=classes, name=name)
    if image.mode == "1":
        return labels_from_greys(np.array(image, np.uint8), classes, name=name)
    if image.mode == "L":
        stored: NDArray[Any] = np.array(image)
        if opened.full_scale != 255:  # Pillow scales 4 bits to 8
            stored = np.rint(stored * (opened.full_scale / 255)).astype(np.int32)
        return _labels_from_stored(opened, stored, classes, name=name)
    transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa")
    pixels = np.array(_converted(image, "RGBA" if transparent else "RGB", path))
    return labels_from_transparency(pixels, classes, name=name, lossy=opened.lossy)


def read_probability(path: Path | str) -> NDArray[np.float32]:
    """Read an 8-bit or 16-bit grey image as probabilities, `(H, W)` float32 in [0, 1].

    Raises:
        DataError: unreadable, or not grey.
    """
    path = Path(path)
    opened = open_image(path)
    image = opened.image
    if image.mode == "1":
        return np.array(image, np.float32)
    values: NDArray[Any] = _rgb(image, path) if opened.deep is None else opened.deep
    values = values[..., None] if values.ndim == 2 else values
    known = opened.grey_deep or image.mode in ("L", "P", "RGB")
    if known and (values == values[..., :1]).all():
        full_scale = 255 if opened.deep is None else opened.full_scale
        return (values[..., 0] / full_scale).astype(np.float32)
    raise DataError(f"{path}: a {image.mode} image; a probability map is 8-bit or 16-bit grey")


def is_soft_map(path: Path | str) -> bool:
    """Whether a file is a probability map: grey, lossless, with more than two values."""
    opened = open_image(Path(path))
    if opened.image.mode == "P" or opened.lossy:
        return False
    try:
        return len(np.unique(read_probability(path))) > 2
    except DataError:
        return False


def write_mask(path: Path | str, labels: NDArray[np.uint8], classes: Sequence[TaskClass]) -> None:
    """Write class indices, `(H, W)` uint8, as a palette PNG in the class colours, atomically.

    Raises:
        DataError: a label is not a class value.
    """
    known = {0} | {each.value for each in classes}
    unknown = _unknown(labels, known)
    if labels.ndim != 2 or labels.dtype != np.uint8 or unknown:
        raise DataError(
            f"{path}: cannot write {labels.dtype} labels of shape {labels.shape} with the values "
            f"{sorted(unknown)}; expected (H, W) uint8 with {sorted(known)}"
        )
    colours = np.zeros((max(known) + 1, 3), np.uint8)
    for each in classes:
        colours[each.value] = each.rgb
    image = Image.fromarray(labels)
    image.putpalette(colours.tobytes())
    _save_png(path, image)


def write_probability(path: Path | str, probability: NDArray[np.float32]) -> None:
    """Write a probability map, `(H, W)`, as 16-bit grey PNG, round(p * 65535), atomically.

    Raises:
        DataError: not two-dimensional, not finite or outside [0, 1].
    """
    low, high = float(np.min(probability)), float(np.max(probability))
    if probability.ndim != 2 or not (low >= 0 and high <= 1):
        raise DataError(
            f"{path}: values from {low:g} to {high:g} in shape {probability.shape}; a probability "
            "map is (H, W) from 0 to 1"
        )
    grey = np.rint(probability.astype(np.float64) * 65535).astype(np.uint16)
    _save_png(path, Image.fromarray(grey))


def write_image(path: Path | str, pixels: NDArray[np.uint8]) -> None:
    """Write `(H, W, 3)` uint8 RGB as PNG, atomically; the folder exists."""
    _save_png(path, Image.fromarray(pixels))


def overlay(
    pixels: NDArray[np.uint8], labels: NDArray[np.uint8], classes: Sequence[TaskClass]
) -> NDArray[np.uint8]:
    """Draw classes over a copy of a frame: a translucent fill with an opaque contour.

    `pixels` are `(H, W, 3)` uint8 RGB, `labels` `(H, W)` uint8, 0 background, k class k.

    Raises:
        DataError: frame and labels differ in size.
    """
    if pixels.shape[:2] != labels.shape:
        raise DataError(f"labels of {labels.shape} do not match a frame of {pixels.shape[:2]}")
    drawn = pixels.copy()
    line = max(1, round(min(labels.shape) / 250))
    for each in classes:
        inside = (labels == each.value).view(np.uint8)
        x, y, width, height = cv2.boundingRect(inside)
        if not width:
            continue
        box = np.s_[y : y + height, x : x + width]
        inside, part = inside[box], drawn[box]
        fill = cv2.erode(inside, _CROSS, iterations=line, borderValue=0)
        blend = 0.7 * _GREYS[:, None] + 0.3 * np.array(each.rgb, np.float32)
        part[inside > fill] = each.rgb
        cv2.copyTo(cv2.LUT(part, np.rint(blend).astype(np.uint8)[:, None]), fill, part)
    return drawn


def image_files(folder: Path | str) -> list[Path]:
    """Return the image files below `folder`, recursively, sorted by name.

    Files are selected by suffix, case-insensitively, without hidden files and those that macOS adds
    to archives (`._a.png`, `__MACOSX`).
    """
    folder = Path(folder)
    found = (p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    kept = (p for p in found if not any(map(_is_hidden, p.relative_to(folder).parts)))
    return sorted(kept, key=lambda p: p.relative_to(folder).as_posix())


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _labels_from_stored(
    opened: OpenedImage,
    values: NDArray[np.integer[Any]],
    classes: Sequence[TaskClass],
    *,
    name: str,
) -> NDArray[np.uint8]:
    """Turn greys into class indices; in `values` white is always high."""
    full_scale = stated_scale(values, full_scale=opened.full_scale, stated_bits=opened.stated_bits)
    if opened.white_is_zero:
        values = indices_of_white_zero(values, classes, name=name, full_scale=opened.full_scale)
    return labels_from_greys(values, classes, name=name, full_scale=full_scale, lossy=opened.lossy)


def _palette_alpha(transparent: object, count: int) -> NDArray[np.uint8]:
    """Return the alpha of each entry of a palette."""
    alpha = np.full(count, 255, np.uint8)
    if isinstance(transparent, bytes):
        stated = np.frombuffer(transparent, np.uint8)[:count]
        alpha[: len(stated)] = stated
    elif isinstance(transparent, int) and transparent < count:
        alpha[transparent] = 0
    return alpha


def _rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    """Return 8-bit RGB, with transparency over black."""
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        coloured = _converted(image, "RGBA", path)
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, coloured)
    return np.array(_converted(image, "RGB", path))


def _converted(image: Image.Image, mode: str, path: Path) -> Image.Image:
    if image.mode == mode:
        return image
    try:
        return image.convert(mode)
    except ValueError as error:  # CIE L*a*b*
        raise DataError(
            f"{path}: {image.mode} colours are not supported; save it as RGB"
        ) from error


def _over_black(
    pixels: NDArray[np.uint8], deep: NDArray[np.integer[Any]], opened: OpenedImage
) -> NDArray[np.uint8]:
    """Return RGB from samples of more than 8 bits, with transparency over black."""
    if opened.transparent is not None:  # one transparent grey or colour
        key = np.atleast_1d(np.asarray(opened.transparent))
        stored = deep[..., None] if deep.ndim == 2 else deep[..., :3]
        pixels = pixels * ~(stored == key).all(axis=2)[(...,) + (None,) * (pixels.ndim - 2)]
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.shape[2] == 3:
        return pixels
    alpha = deep[..., 3:].astype(np.float64) / opened.full_scale
    return np.rint(pixels[..., :3] * alpha).astype(np.uint8)


def _unknown(labels: NDArray[Any], known: set[int]) -> set[int]:
    """Return the label values that are not in `known`."""
    if labels.dtype == np.uint8 and set(range(int(labels.max(initial=0)) + 1)) <= known:
        return set()  # a hundred times faster than np.unique
    return set(np.unique(labels).tolist()) - known


def _save_png(path: Path | str, image: Image.Image) -> None:
    """Write a PNG with run-length compression.

    Compared with zlib's default, masks are a tenth smaller in half the time, and pictures a
    twentieth larger in a quarter of the time.
    """
    encoded = io.BytesIO()
    image.save(encoded, format="PNG", compress_type=zlib.Z_RLE)
    write_bytes(Path(path), encoded.getvalue())


def captioned(pixels: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """Return `(H, W, 3)` uint8 RGB pixels with a line of text on a dark band at the bottom."""
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image, "RGBA")
    height, width = pixels.shape[:2]
    size = max(8, height // 36)
    font = ImageFont.load_default(size)
    if draw.textlength(text, font) > width - 4:
        size = max(6, int(size * (width - 4) / draw.textlength(text, font)))
        font = ImageFont.load_default(size)
    draw.rectangle((0, height - size - size // 2, width, height), fill=(0, 0, 0, 160))
    draw.text((2, height - size - size // 4), text, font=font, fill=(255, 255, 255, 255))
    return np.asarray(image)


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
