"""Decode frames and show them the way a viewer would: stored values to 8-bit RGB.

The chain is that of DICOM PS3.3 C.11: modality LUT or rescale, then VOI LUT or window, then the
photometric interpretation. Colour goes through its palette or colour matrix.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels import get_decoder, iter_pixels
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from sam2unet_core.dicom.grey import GreyChain
from sam2unet_core.dicom.header import frame_count
from sam2unet_core.dicom.jpeg import CHECKED, check_lossless
from sam2unet_core.dicom.lookup import palette
from sam2unet_core.dicom.quiet import quiet, quietly
from sam2unet_core.dicom.storage import name_of
from sam2unet_core.errors import InputError
from sam2unet_core.task import Window

Pixels = NDArray[np.uint8]
_DECODERS = {
    **dict.fromkeys((JPEGBaseline8Bit, JPEGExtended12Bit), "pillow"),
    **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), "pyjpegls"),
    **dict.fromkeys((JPEG2000Lossless, JPEG2000), "pylibjpeg"),
}
"""Which of several decoders is taken: not GDCM where there is another, since on some broken
streams it ends the whole process instead of raising an error."""


def iterate_frames(
    path: Path, dataset: Dataset, *, window: Window | None = None, stride: int = 1
) -> Iterator[tuple[int, Pixels]]:
    """Decode the frames of an instance one at a time.

    Args:
        path: the file.
        dataset: its header.
        window: replaces the file's own for CT.
        stride: take every so-manyth frame, from the first.

    Yields:
        The frame's 0-based index and its pixels, `(H, W, 3)` uint8 RGB.

    Raises:
        InputError: no decoder for the transfer syntax, or broken data.
    """
    try:
        get_decoder(dataset.file_meta.TransferSyntaxUID)
        with quiet():
            if dataset.file_meta.TransferSyntaxUID in CHECKED:
                check_lossless(path)
            show = _Display(dataset, window)
        indices = range(0, frame_count(dataset), stride)
        done = 0
        for stored in quietly(_stored(path, dataset, indices)):
            yield indices[done], show(stored, indices[done])
            done += 1
    except InputError:
        raise
    except Exception as error:  # decoders fail in many ways on broken data
        raise _explained(error, dataset) from error
    if done < len(indices):
        raise InputError(
            f"{done} of {len(indices)} frames are there; copy the file again", reason="truncated"
        )


def _stored(path: Path, dataset: Dataset, indices: range) -> Iterator[NDArray[Any]]:
    """Yield stored values, `(H, W)` or `(H, W, 3)`, colour already as RGB."""
    decoder = _DECODERS.get(dataset.file_meta.TransferSyntaxUID, "")
    started = False
    if dataset.file_meta.TransferSyntaxUID != DeflatedExplicitVRLittleEndian:
        try:
            for values in _decoded(path, indices, decoder):
                yield _sign_extended(values, dataset)
                started = True
        except Exception:
            if started:
                raise
    if not started:  # some files can only be read whole: deflated, without a file meta group
        whole = dcmread(path, force=True)
        whole.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
        for values in _decoded(whole, indices, decoder):
            yield _sign_extended(values, dataset)


def _decoded(source: Path | Dataset, indices: range, decoder: str) -> Iterator[NDArray[Any]]:
    # pydicom 3.0 writes into a read-only array when it corrects signs; `_sign_extended` does it.
    yield from itertools.islice(
        iter_pixels(
            source,
            indices=None if indices.step == 1 else indices,
            decoding_plugin=decoder,
            apply_j2k_sign_correction=False,
            apply_jls_sign_correction=False,
        ),
        len(indices),
    )


def _sign_extended(values: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    """Give the bits above Bits Stored the value that the sign asks for; colour has none."""
    unused = 8 * values.dtype.itemsize - int(dataset.get("BitsStored") or dataset.BitsAllocated)
    if not unused or values.ndim == 3 or dataset.BitsAllocated == 1:
        return values
    return values << unused >> unused


class _Display:
    """Turns the stored values of one instance into RGB."""

    def __init__(self, dataset: Dataset, window: Window | None) -> None:
        self._photometric = str(dataset.PhotometricInterpretation)
        self._bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
        self._size = (int(dataset.Rows), int(dataset.Columns))
        self._grey: GreyChain | None = None
        if self._photometric == "PALETTE COLOR":
            syntax = dataset.file_meta.TransferSyntaxUID
            self._palette = palette(
                dataset,
                signed=dataset.get("PixelRepresentation") == 1,
                little_endian=syntax != "1.2.840.10008.1.2.2",
            )
        elif self._photometric in ("MONOCHROME1", "MONOCHROME2"):
            self._grey = GreyChain(dataset, window)
        elif self._photometric != "RGB" and self._photometric not in _COLOUR_MATRICES:
            raise InputError(
                f"the photometric interpretation {self._photometric} is not read",
                reason="unsupported_transfer_syntax",
            )

    def __call__(self, stored: NDArray[Any], index: int) -> Pixels:
        if stored.shape[:2] != self._size:
            raise InputError(
                f"a frame of {stored.shape[:2]} where the header says {self._size}",
                reason="corrupt",
            )
        if self._grey is not None:
            grey = self._grey(stored, index)
            return np.repeat(grey[:, :, None], 3, axis=2)
        if self._photometric == "PALETTE COLOR":
            channels = [_to_eight_bits(t(stored), t.bits) for t in self._palette]
            return np.stack(channels, axis=2)
        return _to_eight_bits(stored, self._bits)


_COLOUR_MATRICES = ("YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
"""Decoded to RGB by pydicom."""


def _to_eight_bits(values: NDArray[Any], bits: int) -> Pixels:
    if bits == 8:
        return np.asarray(values, np.uint8)
    scaled = np.rint(values.astype(np.float64) * (255.0 / (2**bits - 1)))
    pixels: Pixels = np.clip(scaled, 0, 255).astype(np.uint8)
    return pixels


def _explained(error: Exception, dataset: Dataset) -> InputError:
    """Say why decoding failed; of the error only its kind is given, its text may quote the file."""
    syntax = name_of(str(dataset.file_meta.TransferSyntaxUID))
    text = str(error)
    unread = ("missing dependencies", "does not support", "not supported")
    if isinstance(error, NotImplementedError) or any(part in text for part in unread):
        return InputError(
            f"no decoder for this form of {syntax}; convert it, for instance with dcmdjpeg",
            reason="unsupported_transfer_syntax",
        )
    if isinstance(error, MemoryError):
        return InputError("not enough memory for a frame", reason="out_of_memory")
    short = isinstance(error, EOFError) or "less than expected" in text or "end of" in text.lower()
    return InputError(
        f"the pixel data ({syntax}) cannot be decoded ({type(error).__name__}); copy it again",
        reason="truncated" if short else "corrupt",
    )
