"""Writes the masks of a result: those of all frames, or only of frames with findings."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.worker.exchange import ArrayWriter, Exchange


class MaskWriter:
    """A context that writes masks frame by frame.

    Args:
        exchange: the exchange folder.
        shape: classes, rows and columns.
        sparse: leave out frames without findings, and pack eight columns into a byte.
    """

    def __init__(self, exchange: Exchange, shape: tuple[int, int, int], *, sparse: bool) -> None:
        self._exchange = exchange
        self._shape = shape
        self._sparse = sparse
        self._writer = ArrayWriter(exchange, "|u1")
        self._with_findings: list[int] = []

    def __enter__(self) -> MaskWriter:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._writer.__exit__(kind, error, trace)

    def add(self, frame: int, masks: NDArray[np.uint8]) -> None:
        """Write the masks `(K, H, W)` of 0 and 1 of a frame."""
        found = bool(masks.any())
        if found:
            self._with_findings.append(frame)
        if not self._sparse:
            self._writer.append(masks)
        elif found:
            self._writer.append(np.packbits(masks, axis=-1))  # (K, H, ceil(W / 8))

    def result(self) -> dict[str, Any]:
        """Return the fields of a result about the masks."""
        reference, numbers = self._writer.reference, None
        if self._sparse:
            classes, rows, columns = self._shape
            packed = [len(self._with_findings), classes, rows, -(-columns // 8)]
            reference = {**reference, "shape": packed}
            numbers = self._exchange.write(np.array(self._with_findings, "<i4"))
        return {
            "masks": reference,
            "mask_frames": numbers,
            "frames_with_findings": len(self._with_findings),
        }
