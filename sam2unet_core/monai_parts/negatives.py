"""Negative training frames: crops beside the lesion, drawn frames, drawn textures.

A network trained only on frames with a lesion finds one in every frame. These transforms replace a
frame with a negative one. They belong between `LoadFramed` and `Prepared`, where pixels still have
their original resolution; MONAI's `OneOf` chooses among them.
"""

from __future__ import annotations

import numpy as np
import torch
from monai.transforms import Randomizable, Transform
from numpy.typing import NDArray

from sam2unet_core.monai_parts.frames import Item
from sam2unet_core.phantom import draw_frame, draw_texture


def free_parts(mask: NDArray[np.bool_], *, least: float = 0.0) -> list[tuple[slice, slice]]:
    """Return the parts of a frame above, below, left and right of a mask's bounding box.

    Args:
        mask: `(H, W)`.
        least: minimum side of a part, as a fraction of the frame's.

    Returns:
        (rows, columns) of up to four parts, largest first; of the whole frame if the mask is empty.
    """
    height, width = mask.shape
    all_rows, all_columns = slice(0, height), slice(0, width)
    if not mask.any():
        return [(all_rows, all_columns)]
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    parts = [
        (slice(0, int(rows[0])), all_columns),
        (slice(int(rows[-1]) + 1, height), all_columns),
        (all_rows, slice(0, int(columns[0]))),
        (all_rows, slice(int(columns[-1]) + 1, width)),
    ]
    sides = [(r.stop - r.start, c.stop - c.start) for r, c in parts]
    kept = [
        (h * w, part)
        for (h, w), part in zip(sides, parts, strict=True)
        if min(h / height, w / width) >= max(least, 1 / min(mask.shape))
    ]
    return [part for _, part in sorted(kept, key=lambda item: -item[0])]


class RandFreePart(Randomizable, Transform):
    """Crop the frame to a random part without labels; if there is none, keep the frame.

    Args:
        least: minimum side of the part, as a fraction of the frame's.
    """

    def __init__(self, least: float = 0.25) -> None:
        self.least = least

    def __call__(self, data: Item) -> Item:
        """Return a copy of `data` with `image` `(3, h, w)` and `label` `(K, h, w)`, all 0."""
        label = data["label"]
        parts = free_parts(label.any(0).numpy(), least=self.least)
        if not parts:
            return data
        rows, columns = parts[int(self.R.randint(len(parts)))]
        rows = self._within(rows, shortest=int(self.least * label.shape[1]))
        columns = self._within(columns, shortest=int(self.least * label.shape[2]))
        part = (slice(None), rows, columns)
        return data | {"image": data["image"][part].clone(), "label": label[part].clone()}

    def _within(self, span: slice, *, shortest: int) -> slice:
        """Return a random slice within `span`, at least `shortest` long."""
        longest = span.stop - span.start
        length = int(self.R.randint(max(1, min(shortest, longest)), longest + 1))
        start = int(self.R.randint(span.start, span.stop - length + 1))
        return slice(start, start + length)


class RandDrawnFrame(Randomizable, Transform):
    """Replace the frame with a phantom frame of one class; half of them show no lesion.

    Args:
        size: (height, width) of the drawing in pixels.
    """

    def __init__(self, size: tuple[int, int] = (256, 256)) -> None:
        self.size = (int(size[0]), int(size[1]))

    def __call__(self, data: Item) -> Item:
        """Return a copy of `data` with a drawn `image` `(3, h, w)` and `label` `(1, h, w)`."""
        polyps = None if self.R.random() < 0.5 else 0
        pixels, mask = draw_frame(_generator(self.R), size=self.size, polyps=polyps)
        return data | {"image": _channels_first(pixels), "label": torch.from_numpy(mask)[None]}


class RandDrawnTexture(Randomizable, Transform):
    """Replace the frame with a drawn texture that resembles no organ and has no label.

    Args:
        size: (height, width) of the drawing in pixels.
    """

    def __init__(self, size: tuple[int, int] = (256, 256)) -> None:
        self.size = (int(size[0]), int(size[1]))

    def __call__(self, data: Item) -> Item:
        """Return a copy of `data` with a drawn `image` `(3, h, w)` and `label` `(K, h, w)` of 0."""
        pixels = draw_texture(_generator(self.R), size=self.size)
        label = torch.zeros((len(data["label"]), *self.size), dtype=torch.uint8)
        return data | {"image": _channels_first(pixels), "label": label}


def _generator(state: np.random.RandomState) -> np.random.Generator:
    return np.random.default_rng(int(state.randint(2**31)))


def _channels_first(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)
