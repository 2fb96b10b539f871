"""The official trunk files: SAM2 and SAM2.1, four sizes each."""

from __future__ import annotations

from dataclasses import dataclass

from sam2unet_core.errors import WeightsError
from sam2unet_core.network.variants import VARIANTS, Variant

_ORIGIN = "https://dl.fbaipublicfiles.com/segment_anything_2"
_RELEASES = {"sam2": "072824", "sam2.1": "092824"}


@dataclass(frozen=True)
class TrunkEntry:
    """A file that holds a trunk and can be fetched.

    Attributes:
        name: what it is called on the command line; the file is `name`.pt.
        variant: the size of network whose trunk it must hold.
        url: where it is published.
        sha256: its published hash. None where none is published: then the hash seen at the first
            fetch is kept and checked from then on.
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
"""By name; SAM2's before SAM2.1's, since the paper's networks were trained on SAM2's."""


def find_entry(name: str) -> TrunkEntry:
    """Return the entry of that name.

    Raises:
        WeightsError: there is none; the message lists those there are.
    """
    if name not in CATALOG:
        raise WeightsError(f"no trunk is called {name!r}; there are {', '.join(CATALOG)}")
    return CATALOG[name]


def entries_of(variant: Variant) -> list[TrunkEntry]:
    """Return the entries whose trunk fits the network."""
    return [entry for entry in CATALOG.values() if entry.variant.name == variant.name]
