"""Colour space of frames with three components: the stream takes precedence over the header."""

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
"""Component identifiers R, G, B in either case, as in libjpeg."""
_SAMPLE = 1 << 16
_TOLERANCE = 8
"""Levels outside 0 to 255 that lossy compression explains."""
_OUTSIDE_RGB = {"ybr": 0.05, "rgb": 0.005}
"""Share of pixels outside RGB above which components cannot be YCbCr, by their label."""
_FLAT = 2.0
"""Standard deviation below which a picture shows nothing."""
_NO_COLOUR = 3.0
"""Deviation from the middle up to which there are no colour differences."""
_CORRELATED = 0.5
"""Correlation above which two components are colours, not colour differences."""


class ColourRule:
    """Determines the colour space of an instance's frames.

    A JPEG stream states it by markers, component identifiers or sub-sampling. Otherwise the label
    in the header holds, unless the pixels contradict it: dark or saturated colours read as YCbCr
    lie outside RGB, and green and blue correlate, which colour differences do not. What the pixels
    show in one frame holds for the following ones. JPEG 2000 and JPEG XL give RGB if the stream
    transforms colours; otherwise the header holds.
    """

    def __init__(self, photometric: str) -> None:
        self._labelled: Colours = "ybr" if photometric.startswith("YBR_FULL") else "rgb"
        self._decided: Colours | None = None

    def __call__(
        self, stored: NDArray[Any], *, syntax: str = "", stream: bytes = b"", bits: int = 8
    ) -> Colours:
        """Return the colour space of a frame, `(H, W, 3)` components of `bits` bits as decoded.

        `syntax` and `stream` are empty for uncompressed frames.
        """
        if syntax in DCT_SYNTAXES:
            stated = _stated(jpeg_markers(stream))
            return stated or self._guessed(stored, bits)
        if syntax in XL_SYNTAXES or (syntax in WAVELET_SYNTAXES and wavelet_colour(stream)):
            return "rgb"
        return self._labelled

    def _guessed(self, stored: NDArray[Any], bits: int) -> Colours:
        """Return the colour space shown by the first frame with a clear answer."""
        if self._decided is None:
            flat = stored.reshape(-1, 3)
            flat = flat[:: max(1, len(flat) // _SAMPLE)].astype(np.float64) / 2.0 ** (bits - 8)
            self._decided = _shown_by(flat, self._labelled)
        return self._decided or self._labelled


def _stated(markers: JpegMarkers) -> Colours | None:
    """Return the colour space that a JPEG stream states, or None."""
    if markers.adobe is not None:
        return "rgb" if markers.adobe == 0 else "ybr"
    if markers.jfif or markers.subsampled:
        return "ybr"
    return "rgb" if markers.ids in _RGB_IDS else None


def _shown_by(flat: NDArray[np.float64], labelled: Colours) -> Colours | None:
    """Return the colour space that `(N, 3)` components show, or None if unclear."""
    spread, middle = flat.std(axis=0), flat.mean(axis=0)
    if max(spread[1:]) < _NO_COLOUR and max(np.abs(middle[1:] - 128)) < _NO_COLOUR:
        return "ybr"  # a grey picture
    if max(spread) < _FLAT:
        return None
    outside = _share_outside_rgb(flat)
    if labelled == "ybr":
        return "rgb" if outside > _OUTSIDE_RGB["ybr"] else "ybr"
    correlated = min(spread[1:]) == 0 or np.corrcoef(flat[:, 1], flat[:, 2])[0, 1] >= _CORRELATED
    return "rgb" if outside > _OUTSIDE_RGB["rgb"] or correlated else "ybr"


def _share_outside_rgb(flat: NDArray[np.float64]) -> float:
    """Return the share of pixels that, read as YCbCr, lie outside RGB (PS3.3 C.7.6.3.1.2)."""
    luma, blue, red = flat[:, 0], flat[:, 1] - 128, flat[:, 2] - 128
    rgb = (luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue)
    outside = np.zeros(len(flat), bool)
    for channel in rgb:
        outside |= (channel < -_TOLERANCE) | (channel > 255 + _TOLERANCE)
    return float(outside.mean()) if len(outside) else 0.0
