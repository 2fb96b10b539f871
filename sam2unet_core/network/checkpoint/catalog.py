"""The official trunk files: SAM2 and SAM2.1, four sizes each."""

from __future__ import annotations

from dataclasses import dataclass

from sam2unet_core.errors import WeightsError
from sam2unet_core.network.variants import VARIANTS, Variant

_ORIGIN = "https://dl.fbaipublicfiles.com/segment_anything_2"
_RELEASES = {"sam2": "072824", "sam2.1": "092824"}


@dataclass(frozen=True)
class TrunkEntry:
    """A trunk file that can be downloaded.

    Attributes:
        name: its name on the command line; the file is `name`.pt.
        variant: the variant whose trunk it must hold.
        url: where it is published.
        sha256: its published hash. If None, the hash of the first download is recorded, and later
            downloads are checked against it.
    """

    name: str
    variant: Variant
    url: str
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        """Name of the file in the cache."""
        return f"{self.name}.pt"


CATALOG: dict[str, TrunkEntry] = {
    f"{family}_hiera_{row.name}": TrunkEntry(
        f"{family}_hiera_{row.name}",
        row,
        f"{_ORIGIN}/{release}/{family}_hiera_{row.name}.pt",
    )
    for family, release in _RELEASES.items()
    for row in VARIANTS.values()
    if row.sam2
}
"""By name; SAM2 comes before SAM2.1, because the paper's networks were trained on SAM2."""


def find_entry(name: str) -> TrunkEntry:
    """Return the entry of that name.

    Raises:
        WeightsError: there is none; the message lists the names.
    """
    if name not in CATALOG:
        raise WeightsError(f"unknown trunk {name!r}; choose from {', '.join(CATALOG)}")
    return CATALOG[name]


def entries_of(variant: Variant) -> list[TrunkEntry]:
    """Return the entries whose trunk fits the network."""
    return [entry for entry in CATALOG.values() if entry.variant.name == variant.name]
