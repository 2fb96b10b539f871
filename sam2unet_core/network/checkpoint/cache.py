"""The official trunk files, and the folder of cached trunks on this machine, indexed by hash."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from platformdirs import user_cache_dir

from sam2unet_core.errors import MissingWeightsError, WeightsError
from sam2unet_core.files import file_sha256, write_bytes
from sam2unet_core.network.checkpoint.formats import Checkpoint, read_checkpoint
from sam2unet_core.network.keys import trunk_hash
from sam2unet_core.network.variants import VARIANTS, Variant, find_variant

CACHE_VARIABLE = "SAM2UNET_CACHE"
_INDEX = "index.json"
_SUFFIXES = (".pt", ".pth", ".safetensors")


@dataclass(frozen=True)
class CachedTrunk:
    """A trunk's record in the index.

    Attributes:
        sha256: hash of the file.
        trunk_sha256: hash of the trunk in it.
        variant: name of the network's variant; None if it has none.
    """

    sha256: str
    trunk_sha256: str
    variant: str | None


def cache_folder() -> Path:
    """Return the folder of cached weights: `weights` below SAM2UNET_CACHE or the user's cache."""
    return Path(os.environ.get(CACHE_VARIABLE) or user_cache_dir("sam2unet")) / "weights"


def trunk_file(variant: str | Variant, *, cache: Path | None = None) -> Path | None:
    """Return the cached trunk file of a variant, or None.

    SAM2's official file takes precedence over SAM2.1's, and both over others.
    """
    row = find_variant(variant)
    fitting = {name for name, record in records(cache).items() if record.variant == row.name}
    official = [e.file_name for e in entries_of(row) if e.file_name in fitting]
    chosen = [*official, *sorted(fitting)]
    return (cache or cache_folder()) / chosen[0] if chosen else None


def require_trunk(variant: str | Variant, *, cache: Path | None = None) -> Path:
    """Return the cached trunk file of a variant.

    Raises:
        MissingWeightsError: there is none; the message has the commands that get it.
    """
    row = find_variant(variant)
    path = trunk_file(row, cache=cache)
    if path is None:
        folder = cache or cache_folder()
        raise MissingWeightsError(
            f"{folder}: holds no weights for the frozen trunk of the network {row.name!r}; "
            f"{how_to_get(row)}"
        )
    return path


def find_trunk(trunk_sha256: str, *, cache: Path | None = None) -> Path | None:
    """Return the cached file whose trunk has that hash, or None."""
    found = (n for n, r in records(cache).items() if r.trunk_sha256 == trunk_sha256)
    name = next(found, None)
    return (cache or cache_folder()) / name if name else None


def how_to_get(variant: Variant) -> str:
    """Return the advice for error messages: which commands get a trunk."""
    commands = [f"`sam2unet weights fetch {entry.name}`" for entry in entries_of(variant)]
    return f"run {' or '.join([*commands, '`sam2unet weights import FILE`'])}"


def import_file(path: Path | str, *, cache: Path | None = None) -> Path:
    """Copy a file that holds a trunk into the cache.

    Returns:
        The file in the cache. It keeps the name of an official file if it holds the same variant;
        otherwise its name is made of the variant and the trunk's hash. If the cache already holds
        the trunk, nothing is copied.

    Raises:
        WeightsError: the file cannot be read or copied, holds no trunk, or differs from the one
            first seen under its name.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path)
    if not checkpoint.has_trunk:
        raise WeightsError(
            f"{path}: holds no trunk, so there is nothing to import; use it directly"
        )
    found = describe(checkpoint)
    name = _name_for(path, found)
    folder = cache or cache_folder()
    known = read_index(folder).get(name)
    if known is not None and known.trunk_sha256 != found.trunk_sha256:
        raise WeightsError(
            f"{path}: its trunk is {found.trunk_sha256}, but that of {name} was "
            f"{known.trunk_sha256} when first seen; download the file again, or rename it if it "
            "is a different one"
        )
    if known is not None and (folder / name).is_file():
        return folder / name
    cached = None if path.stem in CATALOG else find_trunk(found.trunk_sha256, cache=cache)
    if cached is not None:
        return cached
    part = folder / f".{name}.import"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, part)
        part.replace(folder / name)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise WeightsError(f"{path}: cannot be copied to {folder} ({error})") from error
    record(folder, name, found)
    return folder / name


def describe(checkpoint: Checkpoint) -> CachedTrunk:
    """Return the record of a file that holds a trunk."""
    variant = checkpoint.variant.name if checkpoint.variant else None
    return CachedTrunk(file_sha256(checkpoint.path), trunk_hash(checkpoint.tensors), variant)


def records(cache: Path | None = None) -> dict[str, CachedTrunk]:
    """Return the record of each trunk in the cache, by file name.

    Files that were copied there by hand are added to the index.
    """
    folder = cache or cache_folder()
    if not folder.is_dir():
        return {}
    index = read_index(folder)
    found = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES):
        known = index.get(path.name) or _examine(folder, path)
        if known is not None:
            found[path.name] = known
    return found


def read_index(folder: Path) -> dict[str, CachedTrunk]:
    """Return the index: the records of all files that are, or once were, in the cache.

    Raises:
        WeightsError: the index is damaged.
    """
    path = folder / _INDEX
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: CachedTrunk(**entry) for name, entry in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path}: cannot be read ({error}); delete it, it is created again"
        ) from error


def record(folder: Path, name: str, entry: CachedTrunk) -> None:
    """Add a file to the index.

    Raises:
        OSError: the folder cannot be written.
    """
    content = {**read_index(folder), name: entry}
    text = json.dumps({key: asdict(value) for key, value in content.items()}, indent=2)
    write_bytes(folder / _INDEX, f"{text}\n".encode())


def _examine(folder: Path, path: Path) -> CachedTrunk | None:
    checkpoint = read_checkpoint(path)
    if not checkpoint.has_trunk:
        return None
    entry = describe(checkpoint)
    if os.access(folder, os.W_OK):  # a shared cache may be read-only
        record(folder, path.name, entry)
    return entry


def _name_for(path: Path, found: CachedTrunk) -> str:
    entry = CATALOG.get(path.stem)
    if entry is not None and entry.variant.name == found.variant:
        return entry.file_name
    suffix = path.suffix if path.suffix in _SUFFIXES else ".pt"
    return f"{found.variant or 'custom'}-{found.trunk_sha256[:12]}{suffix}"


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
