"""Conversion of samples with more than 8 bits to 8, by the depth that the file states.

The contrast of a picture is not stretched if the file states the depth of its samples. Where 12
bits are stored in 16 without a statement, few levels of grey would remain: then the depth is
guessed, with a caution.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.types import Caution

_USUAL_BITS = (8, 10, 12, 14)
_CONTAINER = 15
"""From this depth on (16 bits, or 15 and a sign), files may use fewer bits than they state."""
_SCALED_BYTE = 257
"""Samples that are all multiples of this are 8 bits scaled to 16, however dark they are."""
_DARK, _FLAT = 4, 16
"""Samples below a quarter of full scale give fewer than 64 levels of grey; those that span less
than a sixteenth of it, such as 12 bits above an offset, fewer than 16."""


def to_bytes(
    samples: NDArray[np.integer[Any]], *, full_scale: int, stated_bits: int | None
) -> tuple[NDArray[np.uint8], tuple[Caution, ...]]:
    """Return samples (0 to 65535, any shape) as 8 bits, and what was guessed.

    `full_scale` is the largest value of the sample type, `stated_bits` the number of significant
    bits that the file states, if any.
    """
    low, high, cautions = _range(samples, full_scale, stated_bits)
    if not high > low:
        return np.zeros(samples.shape, np.uint8), cautions
    inputs = np.arange(65536, dtype=np.float64)
    table = np.rint(np.clip((inputs - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return table[samples], cautions


def stated_scale(
    samples: NDArray[np.integer[Any]], *, full_scale: int, stated_bits: int | None
) -> int:
    """Return the largest possible sample value, by the depth that the file states.

    PNG requires samples of 12 significant bits to be scaled to 16; not every writer does so.
    """
    bits = full_scale.bit_length()
    if stated_bits is None or not 8 <= stated_bits < bits or samples.max() >= 2**stated_bits:
        return full_scale
    found = np.flatnonzero(np.bincount(samples.ravel(), minlength=1))
    scaled = _is_scaled_up(found, bits=bits, significant=stated_bits)
    return full_scale if scaled else 2**stated_bits - 1


def _range(
    samples: NDArray[np.integer[Any]], full_scale: int, stated_bits: int | None
) -> tuple[int, int, tuple[Caution, ...]]:
    """Return the values shown as black and as white."""
    bits = full_scale.bit_length()
    if stated_bits is not None and 8 <= stated_bits < bits:
        return 0, stated_scale(samples, full_scale=full_scale, stated_bits=stated_bits), ()
    if bits < _CONTAINER:
        return 0, full_scale, ()
    found = np.flatnonzero(np.bincount(samples.ravel(), minlength=1))
    lowest, highest = int(found[0]), int(found[-1])
    dark = highest * _DARK < full_scale
    enough = not dark and (highest - lowest) * _FLAT >= full_scale
    if enough or highest == 0 or not (found % _SCALED_BYTE).any():
        return 0, full_scale, ()
    depth = next((each for each in _USUAL_BITS if highest < 2**each), None) if dark else None
    low, high = (lowest, highest) if depth is None else (0, 2**depth - 1)
    shown = f"as {depth} bits" if depth else "over that range"
    message = (
        f"samples of {bits} bits range from {lowest} to {highest}, and the file does not state "
        f"their depth: shown {shown}"
    )
    return low, high, (Caution("window_guessed", message),)


def _is_scaled_up(found: NDArray[np.intp], *, bits: int, significant: int) -> bool:
    """Whether samples were scaled to the full depth: by factor, shift or bit replication."""
    original = found >> (bits - significant)
    scaled = np.rint(original * ((2**bits - 1) / (2**significant - 1)))
    left = original << (bits - significant)
    repeated = left | original >> max(0, 2 * significant - bits)
    return any(np.array_equal(found, each) for each in (scaled, left, repeated))
