"""Which colours a frame of three components holds: what its stream says goes before the header."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.dicom.codecs import (
    DCT_SYNTAXES,
    WAVELET_SYNTAXES,
    XL_SYNTAXES,
    JpegMarkers,
    jpeg_markers,
    wavelet_colour,
)

Colours = Literal["rgb", "ybr"]
_RGB_IDS = ((82, 71, 66), (114, 103, 98))
"""Component identifiers R, G, B in either case, as libjpeg takes them."""
_SAMPLE = 1 << 16
_TOLERANCE = 8
"""Levels beyond 0 to 255 that lossy compression explains."""
_BEYOND = {"ybr": 0.05, "rgb": 0.005}
"""Share of pixels beyond RGB from which on components cannot be YCbCr, by their label."""
_FLAT = 2.0
"""Levels of spread below which a picture shows nothing."""
_NO_COLOUR = 3.0
"""Levels from the middle within which colour differences are none."""
_TOGETHER = 0.5
"""Correlation above which two components are colours, not colour differences."""


class ColourRule:
    """Says what the three components of an instance's frames are; an open question once for all.

    A JPEG stream says so by its markers, its identifiers, or by coarser second components. Without
    them the header's label holds, unless the pixels cannot be that: dark or saturated colours,
    taken for YCbCr, have no RGB; green and blue, as colours of one thing, go together, which colour
    differences do not. JPEG 2000 and JPEG XL give RGB where the stream transforms colours; all else
    is as the header says.

    Args:
        photometric: Photometric Interpretation of the header.
    """

    def __init__(self, photometric: str) -> None:
        self._labelled: Colours = "ybr" if photometric.startswith("YBR_FULL") else "rgb"
        self._decided: Colours | None = None

    def __call__(
        self, stored: NDArray[Any], *, syntax: str = "", stream: bytes = b"", bits: int = 8
    ) -> Colours:
        """Return what a frame holds.

        Args:
            stored: `(H, W, 3)` components as decoded.
            syntax: UID of what the stream is of; empty where the frame is not compressed.
            stream: the compressed frame.
            bits: depth of the components.
        """
        if syntax in DCT_SYNTAXES:
            stated = _stated(jpeg_markers(stream))
            return stated or self._guessed(stored, bits)
        if syntax in XL_SYNTAXES or (syntax in WAVELET_SYNTAXES and wavelet_colour(stream)):
            return "rgb"
        return self._labelled

    def _guessed(self, stored: NDArray[Any], bits: int) -> Colours:
        """Look at the pixels; what they showed once holds for the frames that follow."""
        if self._decided is None:
            flat = stored.reshape(-1, 3)
            flat = flat[:: max(1, len(flat) // _SAMPLE)].astype(np.float64) / 2.0 ** (bits - 8)
            self._decided = _shown_by(flat, self._labelled)
        return self._decided or self._labelled


def _stated(markers: JpegMarkers) -> Colours | None:
    """Return what a JPEG stream says of its colours, or None."""
    if markers.adobe is not None:
        return "rgb" if markers.adobe == 0 else "ybr"
    if markers.jfif or markers.subsampled:
        return "ybr"
    return "rgb" if markers.ids in _RGB_IDS else None


def _shown_by(flat: NDArray[np.float64], labelled: Colours) -> Colours | None:
    """Return what `(N, 3)` components show themselves to be; None where that stays open."""
    spread, middle = flat.std(axis=0), flat.mean(axis=0)
    if max(spread[1:]) < _NO_COLOUR and max(np.abs(middle[1:] - 128)) < _NO_COLOUR:
        return "ybr"  # a grey picture
    if max(spread) < _FLAT:
        return None
    beyond = _beyond_rgb(flat)
    if labelled == "ybr":
        return "rgb" if beyond > _BEYOND["ybr"] else "ybr"
    together = min(spread[1:]) == 0 or np.corrcoef(flat[:, 1], flat[:, 2])[0, 1] >= _TOGETHER
    return "rgb" if beyond > _BEYOND["rgb"] or together else "ybr"


def _beyond_rgb(flat: NDArray[np.float64]) -> float:
    """Return the share of pixels that, taken for YCbCr, lie outside RGB (PS3.3 C.7.6.3.1.2)."""
    luma, blue, red = flat[:, 0], flat[:, 1] - 128, flat[:, 2] - 128
    rgb = (luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue)
    outside = np.zeros(len(flat), bool)
    for channel in rgb:
        outside |= (channel < -_TOLERANCE) | (channel > 255 + _TOLERANCE)
    return float(outside.mean()) if len(outside) else 0.0
