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
_OUT_OF_REACH = {"ybr": 0.05, "rgb": 0.001}
"""Share of pixels that no RGB corresponds to, from which on components cannot be YCbCr; by what
they are taken for without a look at them."""
_TOGETHER = 0.5
"""Correlation above which two components are colours, not colour differences."""


def colours_of(
    stored: NDArray[Any], *, photometric: str, syntax: str, stream: bytes = b"", bits: int = 8
) -> Colours:
    """Return what the three components of a frame are.

    A JPEG stream says so by its markers, its identifiers, or by coarser second components. Without
    them, baseline is YCbCr by convention and lossless as the header says, unless the pixels cannot
    be: dark or saturated colours, taken for YCbCr, have no RGB. JPEG 2000 and JPEG XL give RGB
    where the stream transforms colours; all else is as the header says.

    Args:
        stored: `(H, W, 3)` components as decoded.
        photometric: Photometric Interpretation of the header.
        syntax: UID of the transfer syntax.
        stream: the compressed frame; empty where it is not compressed.
        bits: depth of the components.
    """
    labelled: Colours = "ybr" if photometric.startswith("YBR_FULL") else "rgb"
    if syntax in DCT_SYNTAXES:
        return _of_jpeg(jpeg_markers(stream), labelled, stored=stored, bits=bits)
    if syntax in XL_SYNTAXES or (syntax in WAVELET_SYNTAXES and wavelet_colour(stream)):
        return "rgb"
    return labelled


def _of_jpeg(
    markers: JpegMarkers, labelled: Colours, *, stored: NDArray[Any], bits: int
) -> Colours:
    if markers.adobe is not None:
        return "rgb" if markers.adobe == 0 else "ybr"
    if markers.jfif or markers.subsampled:
        return "ybr"
    if markers.ids in _RGB_IDS:
        return "rgb"
    usual: Colours = labelled if markers.lossless else "ybr"
    flat = stored.reshape(-1, 3)
    flat = flat[:: max(1, len(flat) // _SAMPLE)].astype(np.float64) / 2.0 ** (bits - 8)
    if _beyond_rgb(flat) > _OUT_OF_REACH[usual]:
        return "rgb"
    return "ybr" if usual == "ybr" or _are_chroma(flat) else "rgb"


def _are_chroma(flat: NDArray[np.float64]) -> bool:
    """Whether the second and third component go their own ways, as green and blue never do."""
    luma, blue, red = flat.std(axis=0)
    if not blue or not red:
        return bool(luma > 0)
    return bool(np.corrcoef(flat[:, 1], flat[:, 2])[0, 1] < _TOGETHER)


def _beyond_rgb(flat: NDArray[np.float64]) -> float:
    """Return the share of pixels that, taken for YCbCr, lie outside RGB (PS3.3 C.7.6.3.1.2)."""
    luma, blue, red = flat[:, 0], flat[:, 1] - 128, flat[:, 2] - 128
    rgb = (luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue)
    outside = np.zeros(len(flat), bool)
    for channel in rgb:
        outside |= (channel < -_TOLERANCE) | (channel > 255 + _TOLERANCE)
    return float(outside.mean()) if len(outside) else 0.0
