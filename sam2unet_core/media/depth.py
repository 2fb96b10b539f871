"""Samples of more than 8 bits brought to 8: by the depth that the file states, or by a guess.

Nothing is stretched to what one picture happens to hold as long as the file says how deep its
samples are. Where 12 bits lie in 16 and nothing says so, the stated depth would leave a few levels
of grey: then the depth is guessed, and a caution says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.types import Caution

_USUAL_BITS = (8, 10, 12, 14)
_SMALL_SHARE = 4
"""Samples that span less than a quarter of their depth become fewer than 64 levels of grey."""


def to_bytes(
    samples: NDArray[np.integer[Any]], *, full_scale: int, stated_bits: int | None
) -> tuple[NDArray[np.uint8], tuple[Caution, ...]]:
    """Return samples as 8 bits, and what had to be guessed for it.

    Args:
        samples: of any shape, from 0 to 65535.
        full_scale: the largest that the file's samples can be.
        stated_bits: how many bits the file says to be significant, or None.
    """
    low, high, cautions = _range(samples, full_scale, stated_bits)
    if not high > low:
        return np.zeros(samples.shape, np.uint8), cautions
    every = np.arange(65536, dtype=np.float64)
    table = np.rint(np.clip((every - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return table[samples], cautions


def stated_scale(
    samples: NDArray[np.integer[Any]], *, full_scale: int, stated_bits: int | None
) -> int:
    """Return the largest value that samples can have, by what the file says of their depth.

    PNG wants samples of 12 significant bits scaled up to 16; not every program does so.
    """
    bits = full_scale.bit_length()
    if stated_bits is None or not 8 <= stated_bits < bits or samples.max() >= 2**stated_bits:
        return full_scale
    found = np.flatnonzero(np.bincount(samples.ravel(), minlength=1))
    shifted = _fills_the_high_bits(found, bits=bits, significant=stated_bits)
    return full_scale if shifted else 2**stated_bits - 1


def _range(
    samples: NDArray[np.integer[Any]], full_scale: int, stated_bits: int | None
) -> tuple[int, int, tuple[Caution, ...]]:
    """Return what is shown in black and in white."""
    bits = full_scale.bit_length()
    if stated_bits is not None and 8 <= stated_bits < bits:
        return 0, stated_scale(samples, full_scale=full_scale, stated_bits=stated_bits), ()
    found = np.flatnonzero(np.bincount(samples.ravel(), minlength=1))
    lowest, highest = int(found[0]), int(found[-1])
    if (highest - lowest) * _SMALL_SHARE >= full_scale or not _loses(found, full_scale):
        return 0, full_scale, ()
    depth = next((each for each in _USUAL_BITS if highest < 2**each), None)
    low, high = (lowest, highest) if depth is None else (0, 2**depth - 1)
    shown = f"as {depth} bits" if depth else "over their own range"
    message = (
        f"samples of {bits} bits from {lowest} to {highest}, and nothing in the file says how deep "
        f"they are: shown {shown}"
    )
    return low, high, (Caution("window_guessed", message),)


def _loses(found: NDArray[np.intp], full_scale: int) -> bool:
    """Whether different samples become one level of grey."""
    return len(np.unique(np.rint(found * (255 / full_scale)))) < len(found)


def _fills_the_high_bits(found: NDArray[np.intp], *, bits: int, significant: int) -> bool:
    """Whether samples were scaled up to the full depth, as PNG asks for, in any of three ways."""
    original = found >> (bits - significant)
    scaled = np.rint(original * ((2**bits - 1) / (2**significant - 1)))
    left = original << (bits - significant)
    repeated = left | original >> max(0, 2 * significant - bits)
    return any(np.array_equal(found, each) for each in (scaled, left, repeated))
