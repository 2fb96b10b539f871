"""Frames that the client sends as an array."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.protocol import ProtocolError, check_reference, open_array
from sam2unet_core.task import Window
from sam2unet_core.types import Caution, Frame, SourceProperties
from sam2unet_core.worker.exchange import read_items
from sam2unet_core.worker.fields import MAX_FRAMES, Fields, take_properties
from sam2unet_core.worker.warned import not_finite, window_derived

if TYPE_CHECKING:
    from sam2unet_core.dicom.grey import GreyWindow

CHANNELS = ("grey", "rgb")
LARGEST_SIDE_PX = 16384
_WIDEST = 4e307
"""Largest value that can be subtracted and scaled in float64 without overflow."""


@dataclass(frozen=True)
class ArrayInput:
    """An array to segment.

    Attributes:
        folder: the folder of its file.
        reference: the array reference in the request.
        rgb: whether it is `(N, H, W, 3)` uint8; else `(N, H, W)` of any number type.
        window: grey window in the request, or None.
        source: properties of the DICOM source, from the client; None without a DICOM source.
        force: whether to segment it even if the task does not accept it.
    """

    folder: Path
    reference: dict[str, Any]
    rgb: bool
    window: Window | None
    source: SourceProperties | None = None
    force: bool = False

    @classmethod
    def take(cls, fields: Fields, folder: Path, *, force: bool = False) -> ArrayInput:
        """Parse the fields of an array input.

        Raises:
            ProtocolError: as `read_array`, or the shape or type does not fit the channels.
        """
        reference = check_reference(fields.anything("array"))
        channels = fields.choice("channels", CHANNELS, None)
        window, described = fields.inner("window"), fields.inner("source")
        source = None if described is None else take_properties(described)
        given = cls(folder, reference, channels == "rgb", _window(window), source, force)
        fields.end()
        if channels is None:
            raise ProtocolError("bad_request", "channels: expected grey or rgb")
        given.check()
        return given

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows and columns."""
        count, rows, columns = self.reference["shape"][:3]
        return (count, rows, columns)

    def check(self) -> None:
        """Raise a `ProtocolError` if the array cannot be segmented."""
        shape, dtype = self.reference["shape"], self.reference["dtype"]
        good = len(shape) == 4 and shape[3] == 3 and dtype == "|u1" if self.rgb else len(shape) == 3
        if not good or dtype == "|b1":
            expected = "(N, H, W, 3) of |u1" if self.rgb else "(N, H, W) of numbers"
            raise ProtocolError("bad_request", f"array: expected {expected}")
        if self.rgb and self.window is not None:
            raise ProtocolError("bad_request", "window: not for colour images")
        if min(shape) < 1:
            raise ProtocolError("bad_request", "array: is empty")
        if shape[0] > MAX_FRAMES or max(shape[1:3]) > LARGEST_SIDE_PX:
            raise ProtocolError(
                "too_large",
                f"array: at most {MAX_FRAMES} frames of {LARGEST_SIDE_PX} pixels a side",
            )
        open_array(self.folder, self.reference).close()

    def frames(self, window: Window | None) -> Iterator[Frame]:
        """Yield the frames one by one.

        Args:
            window: the task's window, used if the request has none. Without either, uint8 is used
                unchanged, and other types are scaled from the lowest to the highest finite value
                of the whole array, so that all slices of a volume have the same scale.
        """
        shown, guessed = (None, ()) if self.rgb else self._shown(self.window or window)
        for index, values in enumerate(read_items(self.folder, self.reference)):
            pixels, cautions = (values, ()) if self.rgb else _grey(values, shown)
            yield Frame(pixels, index, 0, index + 1, cautions=(*guessed, *cautions))

    def _shown(self, window: Window | None) -> tuple[GreyWindow | None, tuple[Caution, ...]]:
        from sam2unet_core.dicom.grey import GreyWindow  # noqa: PLC0415 - after the greeting

        if window is not None:
            return GreyWindow(window.center, window.width), ()
        if self.reference["dtype"] == "|u1":
            return None, ()
        low, high = np.inf, -np.inf
        for values in read_items(self.folder, self.reference):
            finite = values[np.isfinite(values)]
            if finite.size:
                low, high = min(low, float(finite.min())), max(high, float(finite.max()))
        if not low <= high:
            return GreyWindow(0.5, 1.0, "LINEAR_EXACT"), ()  # no finite values: all black
        first, last = np.clip([low, high], -_WIDEST, _WIDEST).tolist()
        width = (last - first) or 1.0
        shown = GreyWindow((first + last) / 2, width, "LINEAR_EXACT")
        return shown, (window_derived(low, high),)


def _window(fields: Fields | None) -> Window | None:
    if fields is None:
        return None
    center = fields.number("center", None, low=-1e9, high=1e9)
    width = fields.number("width", None, low=1e-6, high=1e9)
    fields.end()
    if center is None or width is None:
        raise ProtocolError("bad_request", "window: expected center and width")
    return Window(center, width)


def _grey(
    values: NDArray[Any], shown: GreyWindow | None
) -> tuple[NDArray[np.uint8], tuple[Caution, ...]]:
    cautions: tuple[Caution, ...] = ()
    if shown is None:
        grey: NDArray[np.uint8] = values
    elif values.dtype.kind == "f":
        bad = ~np.isfinite(values)
        wide = np.where(bad, 0, values).astype(np.float64)
        grey = shown(np.clip(wide, -_WIDEST, _WIDEST))
        grey[bad] = 0
        cautions = (not_finite(),) if bad.any() else ()
    else:
        grey = shown(values)
    return np.repeat(grey[:, :, None], 3, axis=2), cautions
