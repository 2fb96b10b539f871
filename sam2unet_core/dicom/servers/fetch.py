"""Studies and series fetched from a DICOMweb service (QIDO-RS and WADO-RS, PS3.18)."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmwrite
from pydicom.dataelem import RawDataElement

from sam2unet_core.dicom.servers.address import (
    Tls,
    WebServer,
    is_uid,
    is_web_address,
    parse_source,
)
from sam2unet_core.dicom.servers.silence import silent
from sam2unet_core.dicom.servers.web import Session, StatusError, open_client, plain_errors
from sam2unet_core.errors import NetworkError

MEDIA_TYPES = (("application/dicom", "*"),)
"""Any transfer syntax: what is asked for by default leaves video out without a word."""
_PLAIN = Tls()
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_SERIES_COUNT = "00201209"
"""NumberOfSeriesRelatedInstances."""
_UNDEFINED_LENGTH = 0xFFFFFFFF
_NO_CONTENT = 204
_NO_SUCH_SEARCH = frozenset({400, 404, 405, 406, 501})
"""Answers of servers that do not search for the series of a study."""
_EPILOGUE = 4096
"""Bytes at the end of an answer in which its last boundary stands."""

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
        NetworkError: the server cannot be reached, has no such study, broke off, lists or sends
            less than it announces, or is no DICOMweb service.
    """
    server, study, series = parse_source(url, study=study, series=series)
    paths: list[Path] = []
    with silent(), open_client(server, tls=tls) as (session, client):
        service = _Service(client, session, server)
        places = _find(service, study=study, series=series)
        for place in places:
            progress(len(paths), len(places))
            dataset = service.retrieve(place)
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


def _find(service: _Service, *, study: str | None, series: str | None) -> list[Place]:
    """Return where the instances are."""
    client, server = service.client, service.server
    if study is None:
        studies = {
            _value(entry, _STUDY)
            for entry in service.search(
                client.search_for_series, search_filters={"SeriesInstanceUID": series}
            )
            if _value(entry, _SERIES) == series
        }
        if len(studies) != 1:
            raise NetworkError(f"{server}: {len(studies)} studies hold that series; expected one")
        (study,) = studies
    asked = {"study_instance_uid": study, "series_instance_uid": series}
    found = service.search(client.search_for_instances, **asked)
    places = dict.fromkeys(
        (study, _value(entry, _SERIES) or series or "", _value(entry, _INSTANCE)) for entry in found
    )
    if not places:
        raise NetworkError(f"{server}: no such study or series there; check the UID")
    if not all(is_uid(uid) for place in places for uid in place):
        raise NetworkError(
            f"{server}: the server answered {service.session.said}, which lists no instances with "
            "proper UIDs; check the address, and whether a login stands before it"
        )
    _check_counts(service, list(places), series=series)
    return list(places)


def _check_counts(service: _Service, places: list[Place], *, series: str | None) -> None:
    """Refuse a list of instances that is shorter than what the server says of their series.

    Servers cut long lists, and some ignore where a list is to go on. Those that do not say how
    many instances a series has are believed.
    """
    study = places[0][0]
    listed = Counter(place[1] for place in places)
    try:
        entries = service.search(service.client.search_for_series, study_instance_uid=study)
    except StatusError as error:
        if error.status in _NO_SUCH_SEARCH:
            return
        raise
    for entry in entries:
        uid, announced = _value(entry, _SERIES), _value(entry, _SERIES_COUNT)
        if series not in (None, uid) or not (announced.isascii() and announced.isdecimal()):
            continue
        if listed[uid] < int(announced):
            raise NetworkError(
                f"{service.server}: the server announces {announced} instances of a series and "
                f"lists {listed[uid]}; fetch its series one by one, or raise the server's limit "
                "for lists"
            )


class _Service:
    """A client of a DICOMweb service, and what was said last with it."""

    def __init__(self, client: Any, session: Session, server: WebServer) -> None:
        self.client, self.session, self.server = client, session, server

    def search(self, search: Callable[..., Any], **asked: Any) -> list[dict[str, Any]]:
        """Return all results: servers cut long lists, and some ignore where they are to go on.

        Raises:
            NetworkError: there is no answer, or it is no list of data sets.
        """
        found: list[dict[str, Any]] = []
        while True:
            with plain_errors(self.server, self.session):
                page = search(**asked, offset=len(found))
                if not isinstance(page, list) or not all(map(_is_data_set, page)):
                    raise ValueError("no list of data sets")
                if not (found or self.session.body.strip() or self.session.status == _NO_CONTENT):
                    raise ValueError("nothing, where an empty list says that there is nothing")
            new = [entry for entry in page if entry not in found[-len(page) :]] if page else []
            found += new
            if not new:
                return found

    def retrieve(self, place: Place) -> Dataset:
        """Return an instance, whole.

        Raises:
            NetworkError: it does not come, or not whole, or another one comes.
        """
        with warnings.catch_warnings(record=True) as seen, plain_errors(self.server, self.session):
            warnings.simplefilter("always")
            dataset: Dataset = self.client.retrieve_instance(*place, media_types=MEDIA_TYPES)
            cut = _ends_early(dataset)  # first: looking at an element parses it
            uid = dataset.get("SOPInstanceUID")
        cut = cut or any("end of file" in str(each.message).lower() for each in seen)
        if cut or not _is_whole(self.session):
            raise NetworkError(f"{self.server}: an instance was cut off on its way; run this again")
        if uid != place[2]:
            raise NetworkError(
                f"{self.server}: the server sent another instance than was asked for"
            )
        return dataset


def _is_data_set(entry: object) -> bool:
    return isinstance(entry, dict) and all(isinstance(each, dict) for each in entry.values())


def _ends_early(dataset: Dataset) -> bool:
    """Whether the last element is shorter than it says; pydicom takes what there is."""
    last = max(dataset.keys(), default=None)
    element = None if last is None else dataset.get_item(last)
    if not isinstance(element, RawDataElement) or element.length == _UNDEFINED_LENGTH:
        return False
    return len(element.value or b"") < int(element.length)


def _is_whole(session: Session) -> bool:
    """Whether the latest answer, if it has parts, ends as such an answer does (RFC 2046 5.1.1)."""
    message = EmailMessage()
    message["Content-Type"] = session.latest.headers["Content-Type"] if session.latest else ""
    boundary = message.get_boundary()
    if message.get_content_maintype() != "multipart" or boundary is None:
        return True
    return f"--{boundary}--".encode() in session.body[-_EPILOGUE:]


def _value(entry: dict[str, Any], tag: str) -> str:
    """Return the first value of an element of DICOM JSON, empty where it is missing."""
    values = entry.get(tag, {}).get("Value")
    return str(values[0]) if isinstance(values, list) and values else ""


def _name(place: Place) -> str:
    return hashlib.sha256("\0".join(place).encode()).hexdigest()[:16]
