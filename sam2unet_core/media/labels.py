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
        lossy: the values went through JPEG, so they are no exact indices: dark ones may be those
            of a mask of indices as well as noise, and are refused.

    Returns:
        labels: `(H, W)` uint8.

    Raises:
        DataError: the values fit no rule.
    """
    found = np.unique(values)
    highest = int(found[-1])
    if highest == 0:
        return np.zeros(values.shape, np.uint8)
    if highest <= len(classes) and not lossy:
        return values.astype(np.uint8)
    full_scale = min(full_scale, 255) if highest <= 255 else full_scale
    half = (full_scale + 1) // 2
    void = not lossy and _void(found, full_scale)
    if len(classes) == 1 and highest >= half and not void:
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
        palette: `(n, 4)` uint8 RGB and how opaque each entry is; a transparent one is background
            where colours are looked up, and an index is an index, however it is shown.
        classes: the task's classes, values 1 to K.
        name: the file, for the error.

    Returns:
        labels: `(H, W)` uint8.

    Raises:
        DataError: neither indices nor colours name classes.
    """
    highest = int(indices.max())
    black = [not entry[:3].any() for entry in palette[: len(classes) + 1]]
    inverted = any(black) and not black[0] and bool(palette[0, 3])
    if highest <= len(classes) and not inverted:
        return indices
    if highest >= len(palette):
        raise DataError(
            f"{name}: palette index {highest}, but the palette has {len(palette)} colours; "
            f"{_expected(classes)}"
        )
    stored = _listed(np.unique(indices).tolist())
    name = f"{name} (palette indices {stored})"
    return labels_from_transparency(palette[indices], classes, name=name, lossy=False)


def labels_from_transparency(
    pixels: NDArray[np.uint8], classes: Sequence[TaskClass], *, name: str, lossy: bool
) -> NDArray[np.uint8]:
    """Turn RGB or RGBA into class indices.

    What is transparent is background. For a task of one class, where all that can be seen has one
    colour, the transparency is the mask.

    Args:
        pixels: `(H, W, 3)` or `(H, W, 4)` uint8.
        classes: the task's classes, values 1 to K.
        name: the file, for the error.
        lossy: the colours went through JPEG or the like.

    Returns:
        labels: `(H, W)` uint8.

    Raises:
        DataError: the colours name no classes, coloured pixels all are transparent, or class
            values are half transparent.
    """
    colours = np.ascontiguousarray(pixels[..., :3])
    alpha = pixels[..., 3] if pixels.shape[2] == 4 else np.full(pixels.shape[:2], 255, np.uint8)
    if alpha.min() == 255:
        return labels_from_colours(colours, classes, name=name, lossy=lossy)
    seen = alpha > 0
    if not seen.any() and colours.any():
        raise DataError(
            f"{name}: mask with colours, all of which are transparent; save it without an alpha "
            "channel"
        )
    if len(classes) == 1 and seen.any() and (colours[seen] == colours[seen][0]).all():
        return labels_from_greys(alpha, classes, name=f"{name} (transparency)", lossy=lossy)
    half = seen & (alpha < 255)
    if half.any() and (len(classes) > 1 or int(colours.max()) <= 1):
        raise DataError(
            f"{name}: class values in half-transparent pixels (alpha "
            f"{_listed(np.unique(alpha[half]).tolist())}); save the mask without an alpha channel"
        )
    shown = np.rint(colours * (alpha[..., None] / 255)).astype(np.uint8)
    return labels_from_colours(shown, classes, name=name, lossy=lossy)


def indices_of_white_zero(
    values: NDArray[np.integer],
    classes: Sequence[TaskClass],
    *,
    name: str,
    full_scale: int,
) -> NDArray[np.integer]:
    """Return the values of a TIFF with white as zero: class indices as stored, else as shown.

    Args:
        values: `(H, W)`, as shown: white is high.
        classes: the task's classes, values 1 to K.
        name: the file, for the error.
        full_scale: largest value of the file's bit depth.

    Raises:
        DataError: nothing but zeros, which may mean none and all.
    """
    stored = full_scale - values
    if int(stored.max()) > len(classes):
        return values
    if len(classes) == 1 and not stored.any():
        raise DataError(
            f"{name}: mask of zeros alone, stored with white as zero: all background as class "
            "values, all foreground as it is shown; save it with black as zero"
        )
    return stored


def deep_colours_as_bytes(
    deep: NDArray[np.integer], classes: Sequence[TaskClass], *, name: str
) -> NDArray[np.uint8]:
    """Return colours of 16 bits as 8 bits that mean the same classes.

    Values up to 255 stay; multiples of 257 and of 256 are scaled 8-bit values. For a task of one
    class anything else is scaled by its depth, and nothing but 0 becomes 0.

    Args:
        deep: `(H, W, 3)` RGB or `(H, W, 4)` RGBA, 0 to 65535.
        classes: the task's classes, values 1 to K.
        name: the file, for the error.

    Raises:
        DataError: scaling would change class values.
    """
    colours = deep[..., :3].astype(np.int64)
    if int(colours.max()) > 255:
        step = next((each for each in (257, 256) if not (colours % each).any()), None)
        if step is None and len(classes) > 1:
            raise DataError(
                f"{name}: mask with 16-bit colours from {colours.min()} to {colours.max()}; "
                f"{_expected(classes)}"
            )
        scaled = np.rint(colours / (step or 257)).astype(np.int64)
        colours = np.where((colours > 0) & (scaled == 0), 1, scaled)
    if deep.shape[2] == 3:
        return colours.astype(np.uint8)
    alpha = deep[..., 3].astype(np.int64)
    partly = np.clip(np.rint(alpha / 257), 1, 254)
    shown = np.where(alpha == 0, 0, np.where(alpha == 65535, 255, partly))
    joined: NDArray[np.uint8] = np.concatenate([colours, shown[..., None]], axis=2).astype(np.uint8)
    return joined


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


def _void(found: NDArray[np.integer], full_scale: int) -> bool:
    """Whether 255 next to 1 may mean `not labelled`, as in Pascal VOC: then 1 is the class."""
    return 1 in found and full_scale > 2 and set(found.tolist()) <= {0, 1, 255, full_scale}


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
