"""Variants of the network: one table row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sam2unet_core.errors import ConfigError


@dataclass(frozen=True)
class Variant:
    """One size of the network: a Hiera trunk (SAM2, arXiv 2408.00714) and a decoder width.

    Attributes:
        embed_dim: channels of the first stage; each later stage has twice as many.
        num_heads: attention heads of the first stage; each later stage has twice as many.
        stages: number of blocks in each of the four stages.
        global_blocks: indices, counted over all stages, of the blocks with global attention.
        windows: attention window of each stage in tokens; a stage's first block uses the window of
            the previous stage. The position embedding that is tiled over the token grid has the
            size of the first window, which must divide 8 because the grid's sides are multiples.
        pos_background: (rows, columns) of the background position embedding.
        width: channels of the decoder.
        sam2: whether SAM2 publishes weights of this trunk; such a trunk is frozen by default.
        name: name in `VARIANTS`; any other name for a custom network.
    """

    embed_dim: int
    num_heads: int
    stages: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    windows: tuple[int, int, int, int] = (8, 4, 8, 8)
    pos_background: tuple[int, int] = (7, 7)
    width: int = 64
    sam2: bool = False
    name: str = "custom"

    def __post_init__(self) -> None:
        """Raise a `ConfigError` if no network can be built from this row."""
        for key in ("stages", "global_blocks", "windows", "pos_background"):
            object.__setattr__(self, key, tuple(int(v) for v in getattr(self, key)))
        problems = {
            "embed_dim must be a multiple of num_heads": self.num_heads < 1
            or self.embed_dim < 1
            or self.embed_dim % self.num_heads,
            "width must be at least 1": self.width < 1,
            "stages must be four numbers >= 1": len(self.stages) != 4 or min(self.stages) < 1,
            "windows must be four numbers >= 1": len(self.windows) != 4 or min(self.windows) < 1,
            "the first window must be 2, 4 or 8": self.windows[0] not in (2, 4, 8),
            # Pooling blocks use the previous stage's window and pool it 2 x 2.
            "the first three windows must be even": any(w % 2 for w in self.windows[:3]),
            "global_blocks must be indices of blocks": any(
                not 0 <= i < self.depth for i in self.global_blocks
            ),
        }
        broken = [text for text, is_broken in problems.items() if is_broken]
        if broken:
            raise ConfigError(f"variant {self.name!r} cannot be built: {'; '.join(broken)}")

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return sum(self.stages)

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Channels of the four feature maps, finest first."""
        d = self.embed_dim
        return (d, 2 * d, 4 * d, 8 * d)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON types."""
        row = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in row.items()}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Variant:
        """Build a row from the output of `to_dict`.

        Raises:
            ConfigError: a key is unknown or missing, or the row cannot be built.
        """
        try:
            return cls(**row)
        except TypeError as error:
            raise ConfigError(f"not a network variant: {error}") from error


VARIANTS: dict[str, Variant] = {
    v.name: v
    for v in (
        Variant(32, 1, (1, 1, 2, 1), (3,), width=16, name="nano"),
        Variant(48, 1, (1, 2, 5, 2), (5, 7), width=32, name="starter"),
        Variant(96, 1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), sam2=True, name="tiny"),
        Variant(96, 1, (1, 2, 11, 2), (7, 10, 13), (8, 4, 14, 7), sam2=True, name="small"),
        Variant(
            112, 2, (2, 3, 16, 3), (12, 16, 20), (8, 4, 14, 7), (14, 14), sam2=True,
            name="base_plus",
        ),
        Variant(144, 2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8), sam2=True, name="large"),
    )
}  # fmt: skip
"""`nano` and `starter` are ours and train from scratch; the others are SAM2's sizes."""


def find_variant(variant: str | Variant) -> Variant:
    """Return the variant of that name; a `Variant` is returned unchanged.

    Raises:
        ConfigError: no variant has that name; the message lists the names.
    """
    if isinstance(variant, Variant):
        return variant
    if variant not in VARIANTS:
        raise ConfigError(f"unknown variant {variant!r}; choose from {', '.join(VARIANTS)}")
    return VARIANTS[variant]
