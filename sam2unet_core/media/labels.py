"""Turn the stored values of a mask (greys, palettes, colours) into class indices.

Nothing is guessed: values that match no rule raise a DataError with the values found and expected.
In all functions `classes` are the task's classes, with values 1 to K, `name` is the file, for error
messages, and the labels returned are `(H, W)` uint8, 0 for background.
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
"""Largest difference between the channels of a grey pixel after JPEG compression."""


def labels_from_greys(
    values: NDArray[np.integer],
    classes: Sequence[TaskClass],
    *,
    name: str,
    full_scale: int = 255,
    lossy: bool = False,
) -> NDArray[np.uint8]:
    """Turn grey values, `(H, W)` unsigned, into class indices.

    If all values are class indices, they are returned. For a task of one class other values are
    split at half of `full_scale`, if they reach it; 16-bit files with values up to 255 are read as
    8-bit. After JPEG (`lossy`), low values may be indices as well as noise and are refused.
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

    Indices are used if all are class values, unless the palette shows that 0 is not the background
    (one of 1 to K is black and 0 is not, as in an inverted 1-bit palette). The palette is `(n, 4)`
    uint8 RGBA; where colours are used, transparent entries are background.
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
    """Turn RGB or RGBA, `(H, W, 3)` or `(H, W, 4)` uint8, into class indices.

    Transparent pixels are background. For a task of one class, if all visible pixels have one
    colour, the transparency is the mask. `lossy`: the colours were compressed as JPEG or the like.
    """
    colours = np.ascontiguousarray(pixels[..., :3])
    alpha = pixels[..., 3] if pixels.shape[2] == 4 else np.full(pixels.shape[:2], 255, np.uint8)
    if alpha.min() == 255:
        return labels_from_colours(colours, classes, name=name, lossy=lossy)
    visible = alpha > 0
    if not visible.any() and colours.any():
        raise DataError(
            f"{name}: mask with colours, all of which are transparent; save it without an alpha "
            "channel"
        )
    if len(classes) == 1 and visible.any() and (colours[visible] == colours[visible][0]).all():
        return labels_from_greys(alpha, classes, name=f"{name} (transparency)", lossy=lossy)
    half = visible & (alpha < 255)
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
    """Return the values of a WhiteIsZero TIFF: class indices as stored, else as displayed.

    `values` are `(H, W)` as displayed (white is high), up to `full_scale`. A mask of zeros raises
    DataError, since it may mean all background or all foreground.
    """
    stored = full_scale - values
    if int(stored.max()) > len(classes):
        return values
    if len(classes) == 1 and not stored.any():
        raise DataError(
            f"{name}: mask of zeros alone, stored with white as zero: all background as class "
            "values, but all foreground as displayed; save it with black as zero"
        )
    return stored


def deep_colours_as_bytes(
    deep: NDArray[np.integer], classes: Sequence[TaskClass], *, name: str
) -> NDArray[np.uint8]:
    """Return 16-bit colours, `(H, W, 3)` or `(H, W, 4)`, as 8 bits with the same classes.

    Values up to 255 stay; multiples of 257 or 256 are scaled 8-bit values. For a task of one class
    other values are scaled by depth, and only 0 becomes 0; for several classes they raise
    DataError.
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
    """Turn `(H, W, 3)` uint8 RGB into indices: class colours, greys, or one colour on black.

    After JPEG (`lossy`), only greys are supported.
    """
    spread = int((pixels.max(axis=2).astype(int) - pixels.min(axis=2)).max(initial=0))
    if lossy and spread <= _GREY_TOLERANCE:
        return labels_from_greys(pixels[:, :, 1], classes, name=name, lossy=True)
    packed: NDArray[np.uint32] = _pack(pixels)
    found = np.unique(packed)
    wanted = {_pack_one(each.rgb): each.value for each in classes if each.rgb != BLACK}
    wanted[0] = 0
    distinct = len({each.rgb for each in classes}) == len(classes)
    if not lossy and distinct and set(found.tolist()) <= set(wanted):
        return _map_colours(packed, wanted)
    if not lossy and spread == 0:
        return labels_from_greys(pixels[:, :, 1], classes, name=name)
    if not lossy and len(classes) == 1 and len(found) == 2 and found[0] == 0:
        return _map_colours(packed, {0: 0, int(found[1]): 1})
    raise DataError(
        f"{name}: {'JPEG ' if lossy else ''}mask with the colours "
        f"{_listed([_unpack(v) for v in found.tolist()])}; {_expected(classes, lossy=lossy)}"
    )


def _void(found: NDArray[np.integer], full_scale: int) -> bool:
    """Whether 255 may mean `unlabelled` beside class 1, as in Pascal VOC."""
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


def _map_colours(packed: NDArray[np.uint32], values: dict[int, int]) -> NDArray[np.uint8]:
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
