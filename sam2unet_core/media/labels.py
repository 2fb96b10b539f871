"""What the stored values of a mask mean: greys, palettes and colours turned into class indices.

Nothing is guessed: values that fit no rule are refused with what was found and what is expected.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.errors import DataError
from sam2unet_core.task import TaskClass

Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)
_NOISE = 32
"""A JPEG mask that stays below this everywhere is an empty one with compression noise."""
_GREY_TOLERANCE = 12
"""JPEG stores colour differences coarsely: this far apart, three channels still are a grey."""


def labels_from_greys(
    values: NDArray[np.integer],
    classes: Sequence[TaskClass],
    *,
    name: str,
    full_scale: int = 255,
    lossy: bool = False,
) -> NDArray[np.uint8]:
    """Turn grey values into class indices.

    Values that all are class indices are taken as such. For a task of one class anything else is
    split at half of full scale, if it reaches that.

    Args:
        values: `(H, W)` unsigned.
        classes: the task's classes, values 1 to K.
        name: the file, for the error.
        full_scale: largest value of the file's bit depth; 16-bit files that stay within 0 to 255
            are read as 8-bit ones.
        lossy: the values went through JPEG, so they are no exact indices.

    Returns:
        labels: `(H, W)` uint8.

    Raises:
        DataError: the values fit no rule.
    """
    found = np.unique(values)
    highest = int(found[-1])
    if highest == 0 or (lossy and len(classes) == 1 and highest < _NOISE):
        return np.zeros(values.shape, np.uint8)
    if highest <= len(classes) and not lossy:
        return values.astype(np.uint8)
    half = 128 if highest <= 255 else (full_scale + 1) // 2
    if len(classes) == 1 and highest >= half and not _void(found, lossy=lossy):
        return (values >= half).astype(np.uint8)
    raise DataError(
        f"{name}: {'JPEG ' if lossy else ''}mask with the values {_listed(found.tolist())}; "
        f"{_expected(classes, lossy=lossy)}"
    )


def labels_from_palette(
    indices: NDArray[np.uint8],
    palette: NDArray[np.uint8],
    *,
    classes: Sequence[TaskClass],
    name: str,
) -> NDArray[np.uint8]:
    """Turn a palette image into class indices: by index, else by the palette's colours.

    Indices that all are class values are taken as such, unless the palette shows that 0 is not
    the background there (one of 1 to K is black and 0 is not, as in an inverted 1-bit palette).

    Args:
        indices: `(H, W)` uint8.
        palette: `(n, 3)` uint8 RGB.
        classes: the task's classes, values 1 to K.
        name: the file, for the error.

    Returns:
        labels: `(H, W)` uint8.

    Raises:
        DataError: neither indices nor colours name classes.
    """
    highest = int(indices.max())
    black = [not entry.any() for entry in palette[: len(classes) + 1]]
    inverted = any(black) and not black[0]
    if highest <= len(classes) and not inverted:
        return indices
    if highest >= len(palette):
        raise DataError(
            f"{name}: palette index {highest}, but the palette has {len(palette)} colours; "
            f"{_expected(classes)}"
        )
    stored = _listed(np.unique(indices).tolist())
    return labels_from_colours(palette[indices], classes, name=f"{name} (palette indices {stored})")


def labels_from_colours(
    pixels: NDArray[np.uint8],
    classes: Sequence[TaskClass],
    *,
    name: str,
    lossy: bool = False,
) -> NDArray[np.uint8]:
    """Turn RGB into class indices: the classes' colours, greys, or one colour on black.

    Args:
        pixels: `(H, W, 3)` uint8 RGB.
        classes: the task's classes, values 1 to K.
        name: the file, for the error.
        lossy: the colours went through JPEG; only greys can be read then.

    Returns:
        labels: `(H, W)` uint8.

    Raises:
        DataError: the colours name no classes.
    """
    spread = int((pixels.max(axis=2).astype(int) - pixels.min(axis=2)).max(initial=0))
    if lossy and spread <= _GREY_TOLERANCE:
        return labels_from_greys(_green(pixels), classes, name=name, lossy=True)
    packed: NDArray[np.uint32] = _pack(pixels)
    found = np.unique(packed)
    wanted = {_pack_one(each.rgb): each.value for each in classes if each.rgb != BLACK}
    wanted[0] = 0
    distinct = len({each.rgb for each in classes}) == len(classes)
    if not lossy and distinct and set(found.tolist()) <= set(wanted):
        return _looked_up(packed, wanted)
    if not lossy and spread == 0:
        return labels_from_greys(_green(pixels), classes, name=name)
    if not lossy and len(classes) == 1 and len(found) == 2 and found[0] == 0:
        return _looked_up(packed, {0: 0, int(found[1]): 1})
    raise DataError(
        f"{name}: {'JPEG ' if lossy else ''}mask with the colours "
        f"{_listed([_unpack(v) for v in found.tolist()])}; {_expected(classes, lossy=lossy)}"
    )


def _void(found: NDArray[np.integer], *, lossy: bool) -> bool:
    """Whether 255 next to 1 may mean `not labelled`, as in Pascal VOC: then 1 is the class."""
    return not lossy and 1 in found and set(found.tolist()) <= {0, 1, 255}


def _expected(classes: Sequence[TaskClass], *, lossy: bool = False) -> str:
    if lossy and len(classes) > 1:
        return "JPEG changes class values: save the masks as PNG"
    if len(classes) == 1:
        return (
            "expected 0/1, 0/255, greys that reach half of full scale, or one colour on black"
            + (" (which JPEG does not keep: save it as PNG)" if lossy else "")
        )
    values = ", ".join(f"{each.value} {each.name}" for each in classes)
    colours = ", ".join(f"{each.name} {each.rgb}" for each in classes)
    return f"expected the indices 0 background, {values}, or the colours black, {colours}"


def _listed(values: Sequence[object], *, most: int = 8) -> str:
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(str(value) for value in values[:most]) + more


def _green(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels[:, :, 1]


def _looked_up(packed: NDArray[np.uint32], values: dict[int, int]) -> NDArray[np.uint8]:
    labels = np.zeros(packed.shape, np.uint8)
    for colour, value in values.items():
        labels[packed == colour] = value
    return labels


def _pack(pixels: NDArray[np.uint8]) -> NDArray[np.uint32]:
    red, green, blue = np.moveaxis(pixels.astype(np.uint32), 2, 0)
    packed: NDArray[np.uint32] = red << 16 | green << 8 | blue
    return packed


def _pack_one(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _unpack(value: int) -> Colour:
    return (value >> 16, value >> 8 & 255, value & 255)
