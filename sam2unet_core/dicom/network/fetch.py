"""Studies and series fetched from a DICOMweb service (QIDO-RS and WADO-RS, PS3.18)."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmwrite

from sam2unet_core.dicom.network.address import (
    Tls,
    WebServer,
    is_uid,
    is_web_address,
    parse_source,
)
from sam2unet_core.dicom.network.silence import silent
from sam2unet_core.dicom.network.web import open_client, plain_errors
from sam2unet_core.errors import NetworkError

MEDIA_TYPES = (("application/dicom", "*"),)
"""Any transfer syntax: what is asked for by default leaves video out without a word."""
_PLAIN = Tls()
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"

Progress = Callable[[int, int], None]


def _silent_progress(_done: int, _total: int) -> None:
    pass


def fetch_study(
    url: str,
    folder: Path,
    *,
    study: str | None = None,
    series: str | None = None,
    tls: Tls = _PLAIN,
    progress: Progress = _silent_progress,
) -> list[Path]:
    """Fetch the instances of a study or a series, as they are stored.

    They are asked for one by one, so memory holds one, and none can be missing unnoticed. Files
    are named by hashes of their UIDs: the same in every run, and no identifiers.

    Args:
        url: `dicomweb+https://HOST/PATH`, with `?study=UID`, `&series=UID` or both.
        folder: where the files go; it exists.
        study: its UID, where the address has none.
        series: its UID, where the address has none.
        tls: how the connection is secured.
        progress: told how many of how many instances are there.

    Returns:
        the files, in the order of series and instances as the server lists them.

    Raises:
        ConfigError: not such an address, or no UID.
        MissingExtraError: dicomweb-client is not installed.
        NetworkError: the server cannot be reached, has no such study, or broke off.
    """
    server, study, series = parse_source(url, study=study, series=series)
    paths: list[Path] = []
    with silent(), open_client(server, tls=tls) as (_, client):
        places = _find(client, server, study=study, series=series)
        for place in places:
            progress(len(paths), len(places))
            dataset = _retrieve(client, server, place)
            paths.append(folder / f"{_name(place)}.dcm")
            dcmwrite(paths[-1], dataset)
        progress(len(paths), len(places))
    return paths


@contextmanager
def local_paths(
    inputs: Sequence[str], *, tls: Tls = _PLAIN, progress: Progress = _silent_progress
) -> Iterator[list[Path]]:
    """Turn inputs as a person typed them into paths; what has to be fetched is fetched first.

    Fetched files lie in a folder that only this user can read (0700, below the system's folder
    for such files, which `TMPDIR` moves) and are gone at the end.

    Raises:
        ConfigError, MissingExtraError, NetworkError: as `fetch_study`.
    """
    sources = [text for text in inputs if is_web_address(text)]
    for text in sources:
        parse_source(text)  # a wrong address is said before anything is fetched
    if not sources:
        yield [Path(text) for text in inputs]
        return
    with tempfile.TemporaryDirectory(prefix="sam2unet-") as private:
        paths = []
        for text in inputs:
            if is_web_address(text):
                server, study, series = parse_source(text)
                name = hashlib.sha256(f"{server}\0{study}\0{series}".encode()).hexdigest()[:16]
                folder = Path(private, name)
                folder.mkdir(mode=0o700, exist_ok=True)
                fetch_study(text, folder, tls=tls, progress=progress)
                paths.append(folder)
            else:
                paths.append(Path(text))
        yield paths


Place = tuple[str, str, str]
"""UIDs of study, series and instance."""


def _find(client: Any, server: WebServer, *, study: str | None, series: str | None) -> list[Place]:
    """Return where the instances are."""
    if study is None:
        studies = {
            _value(entry, _STUDY)
            for entry in _search(
                client.search_for_series, server, search_filters={"SeriesInstanceUID": series}
            )
            if _value(entry, _SERIES) == series
        }
        if len(studies) != 1:
            raise NetworkError(f"{server}: {len(studies)} studies hold that series; expected one")
        (study,) = studies
    asked = {"study_instance_uid": study, "series_instance_uid": series}
    found = _search(client.search_for_instances, server, **asked)
    places = dict.fromkeys(
        (study, _value(entry, _SERIES) or series or "", _value(entry, _INSTANCE)) for entry in found
    )
    if not places:
        raise NetworkError(f"{server}: no such study or series there; check the UID")
    if not all(is_uid(uid) for place in places for uid in place):
        raise NetworkError(f"{server}: the server lists instances without proper UIDs")
    return list(places)


def _search(search: Callable[..., Any], server: WebServer, **asked: Any) -> list[dict[str, Any]]:
    """Return all results: servers cut long lists, and some ignore where a list is to go on."""
    found: list[dict[str, Any]] = []
    while True:
        with plain_errors(server):
            page = search(**asked, offset=len(found))
        new = [entry for entry in page if entry not in found[-len(page) :]] if page else []
        found += new
        if not new:
            return found


def _retrieve(client: Any, server: WebServer, place: Place) -> Dataset:
    try:
        with plain_errors(server):
            dataset: Dataset = client.retrieve_instance(*place, media_types=MEDIA_TYPES)
    except IndexError:
        raise NetworkError(f"{server}: the server sent nothing for an instance") from None
    if dataset.get("SOPInstanceUID") != place[2]:
        raise NetworkError(f"{server}: the server sent another instance than was asked for")
    return dataset


def _value(entry: dict[str, Any], tag: str) -> str:
    """Return a UID of DICOM JSON, empty where it is missing."""
    values = entry.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _name(place: Place) -> str:
    return hashlib.sha256("\0".join(place).encode()).hexdigest()[:16]
