"""Cuts a token grid into windows, starting at its upper left corner."""

from torch import Tensor


def whole_and_rest(length: int, window: int) -> list[slice]:
    """Return the slice of a side that whole windows cover, and the rest; omit empty slices."""
    whole = length - length % window
    return [span for span in (slice(0, whole), slice(whole, length)) if span.start < span.stop]


def window_view(x: Tensor, height: int, width: int) -> Tensor:
    """View `(B, H, W, C)` as `(B, H/height, W/width, height, width, C)`."""
    b, full_height, full_width, channels = x.shape
    shape = (b, full_height // height, height, full_width // width, width, channels)
    return x.view(shape).transpose(2, 3)
