"""TIFF files of 9 to 16 bits per sample: tags, and samples with all bits.

Pillow keeps only 8 bits of 16-bit colours and does not support every grey format; libtiff, by
imagecodecs, does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from sam2unet_core.errors import DataError

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
UNSIGNED = 1
_PHOTOMETRIC, _BITS, _COLUMNS, _ROWS, _SAMPLES, _PLANES = 262, 258, 256, 257, 277, 284
_ORIENTATION, _EXTRA, _FORMAT = 274, 338, 339
_STRIPS_AND_TILES = ((273, 279), (324, 325))
_UNASSOCIATED_ALPHA = 2
"""ExtraSamples: alpha that is not multiplied into the colours."""
Turn = Callable[[NDArray[Any]], NDArray[Any]]
UPRIGHT: dict[int, Turn] = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p, 1),
}
"""Transforms that turn stored pixels upright, by EXIF orientation."""


def deep_tags(path: Path) -> dict[int, Any]:
    """Return the tags of a TIFF that `deep_samples` reads; empty for any other file.

    Raises:
        DataError: such a file with more than one picture.
    """
    tags, following = _directory(path)
    sized = all(isinstance(tags.get(tag), int) for tag in (_COLUMNS, _ROWS))
    if not sized or not _is_deep(tags):
        return {}
    if following:
        raise DataError(f"{path}: holds several frames; save each as a file of its own")
    return tags


def is_truncated_tiff(path: Path) -> bool:
    """Whether the samples of a TIFF lie beyond the end of the file; False for other files."""
    tags, _ = _directory(path)
    size = path.stat().st_size
    for starts, lengths in _STRIPS_AND_TILES:
        places = zip(
            np.atleast_1d(tags.get(starts, ())), np.atleast_1d(tags.get(lengths, ())), strict=False
        )
        if any(int(start) + int(length) > size for start, length in places):
            return True
    return False


def deep_samples(path: Path, tags: dict[int, Any]) -> NDArray[np.uint16]:
    """Decode the samples of a TIFF, upright and with 0 as black.

    Returns:
        samples: `(H, W)` grey, `(H, W, 3)` RGB or `(H, W, 4)` RGBA at the bit depth of the file;
            grey with transparency has three equal channels.

    Raises:
        DataError: too many pixels, or an unsupported format.
    """
    if int(tags[_COLUMNS]) * int(tags[_ROWS]) > 2 * (Image.MAX_IMAGE_PIXELS or np.inf):
        raise Image.DecompressionBombError(f"{tags[_COLUMNS]} x {tags[_ROWS]} pixels")
    if not _is_deep(tags):
        raise unsupported_depth(path)
    import imagecodecs  # noqa: PLC0415 - takes a tenth of a second, and few files need it

    found: NDArray[np.uint16] = imagecodecs.tiff_decode(path.read_bytes())
    if found.ndim == 3 and tags.get(_PLANES) == 2:
        found = np.moveaxis(found, 0, 2)
    colours = 3 if tags[_PHOTOMETRIC] == RGB else 1
    shown = found if found.ndim == 2 else found[..., :colours]
    if tags[_PHOTOMETRIC] == WHITE_IS_ZERO:
        shown = np.subtract(2 ** _bits(tags)[0] - 1, shown, dtype=np.uint16)
    if found.ndim == 3:
        shown = _with_alpha(shown, found[..., colours:], tags)
    turn = UPRIGHT.get(int(tags.get(_ORIENTATION, 1)), np.asarray)
    return np.ascontiguousarray(turn(shown))


def unsupported_depth(path: Path) -> DataError:
    """Return the error for samples of more than 8 bits that cannot be decoded in full."""
    return DataError(
        f"{path}: colours of more than 8 bits in an unsupported format; save it with 8 bits, or as "
        "PNG"
    )


def _directory(path: Path) -> tuple[dict[int, Any], int]:
    """Return the tags of the first directory and the offset of the next, 0 for none."""
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
            head += stream.read(8) if head[2:4] in (b"+\0", b"\0+") else b""  # BigTIFF
            directory = TiffImagePlugin.ImageFileDirectory_v2(head)
            first = directory.next
            stream.seek(first)
            directory.load(stream)
            following = directory.next
            return dict(directory), 0 if following == first else following
    except Exception:  # not a TIFF
        return {}, 0


def _with_alpha(
    colours: NDArray[np.uint16], extra: NDArray[np.uint16], tags: dict[int, Any]
) -> NDArray[np.uint16]:
    """Return colours with the first extra sample if it is an unassociated alpha."""
    kind = (*np.atleast_1d(tags.get(_EXTRA, ())), 0)[0]
    if kind != _UNASSOCIATED_ALPHA or not extra.shape[2]:
        return colours[..., 0] if colours.shape[2] == 1 else colours
    rgb = np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else colours
    return np.concatenate([rgb, extra[..., :1]], axis=2)


def _is_deep(tags: dict[int, Any]) -> bool:
    bits, photometric = _bits(tags), tags.get(_PHOTOMETRIC)
    wanted = {16} if len(bits) > 1 else set(range(9, 17))
    unsigned = set(np.atleast_1d(tags.get(_FORMAT, UNSIGNED))) == {UNSIGNED}
    samples = int(tags.get(_SAMPLES, 1))
    enough = samples >= 3 if photometric == RGB else photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
    return unsigned and enough and set(bits) <= wanted


def _bits(tags: dict[int, Any]) -> tuple[int, ...]:
    return tuple(int(each) for each in np.atleast_1d(tags.get(_BITS, 1)))
