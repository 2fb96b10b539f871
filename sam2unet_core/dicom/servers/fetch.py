"""Fetch studies and series from a DICOMweb service (QIDO-RS and WADO-RS, PS3.18)."""

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
"""Any transfer syntax; the default of the client excludes video silently."""
_PLAIN = Tls()
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_SERIES_COUNT = "00201209"
"""NumberOfSeriesRelatedInstances."""
_UNDEFINED_LENGTH = 0xFFFFFFFF
_NO_CONTENT = 204
_SEARCH_UNSUPPORTED = frozenset({400, 404, 405, 406, 501})
"""Status codes of servers that cannot search for the series of a study."""
_EPILOGUE = 4096
"""Bytes at the end of a response that contain its last boundary."""

OnProgress = Callable[[int, int], None]


def _silent_progress(_done: int, _total: int) -> None:
    pass


def fetch_study(
    url: str,
    folder: Path,
    *,
    study: str | None = None,
    series: str | None = None,
    tls: Tls = _PLAIN,
    progress: OnProgress = _silent_progress,
) -> list[Path]:
    """Fetch the instances of a study or a series in their stored encoding.

    Instances are requested one by one, so memory holds one, and a missing one is noticed. Files are
    named by hashes of their UIDs: reproducible and without identifiers.

    Args:
        url: `dicomweb+https://HOST/PATH`, with `?study=UID`, `&series=UID` or both.
        folder: where the files go; it exists.
        study: its UID, if not in the address.
        series: its UID, if not in the address.
        tls: TLS settings.
        progress: called with (instances done, total).

    Returns:
        the files, in the order in which the server lists them.

    Raises:
        ConfigError: not such an address, or no valid UID.
        MissingExtraError: dicomweb-client is not installed.
        NetworkError: the server cannot be reached, has no such study, closed the connection, lists
            or sends less than it states, or is not a DICOMweb service.
    """
    server, study, series = parse_source(url, study=study, series=series)
    paths: list[Path] = []
    with silent(), open_client(server, tls=tls) as (session, client):
        service = _Service(client, session, server)
        instances = _find(service, study=study, series=series)
        for uids in instances:
            progress(len(paths), len(instances))
            dataset = service.retrieve(uids)
            paths.append(folder / f"{_name(uids)}.dcm")
            dcmwrite(paths[-1], dataset)
        progress(len(paths), len(instances))
    return paths


@contextmanager
def local_paths(
    inputs: Sequence[str], *, tls: Tls = _PLAIN, progress: OnProgress = _silent_progress
) -> Iterator[list[Path]]:
    """Turn inputs from the command line into paths; DICOMweb addresses are fetched first.

    Fetched files are stored in a temporary folder that only this user can read (0700; set `TMPDIR`
    to move it) and deleted at the end.

    Raises:
        ConfigError, MissingExtraError, NetworkError: as `fetch_study`.
    """
    sources = [text for text in inputs if is_web_address(text)]
    for text in sources:
        parse_source(text)  # report a wrong address before fetching anything
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


InstanceUids = tuple[str, str, str]
"""UIDs of study, series and instance."""


def _find(service: _Service, *, study: str | None, series: str | None) -> list[InstanceUids]:
    """Return the UIDs of all instances."""
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
    instances = dict.fromkeys(
        (study, _value(entry, _SERIES) or series or "", _value(entry, _INSTANCE)) for entry in found
    )
    if not instances:
        raise NetworkError(f"{server}: no such study or series; check the UID")
    if not all(is_uid(uid) for uids in instances for uid in uids):
        raise NetworkError(
            f"{server}: the server answered {service.session.summary}, which lists no instances "
            "with valid UIDs; check the address, and whether it requires a login"
        )
    _check_counts(service, list(instances), series=series)
    return list(instances)


def _check_counts(service: _Service, instances: list[InstanceUids], *, series: str | None) -> None:
    """Raise NetworkError if the list of instances is shorter than the server states.

    Servers truncate long lists, and some ignore the offset. Servers that do not state the number
    of instances in a series are trusted.
    """
    study = instances[0][0]
    listed = Counter(uids[1] for uids in instances)
    try:
        entries = service.search(service.client.search_for_series, study_instance_uid=study)
    except StatusError as error:
        if error.status in _SEARCH_UNSUPPORTED:
            return
        raise
    for entry in entries:
        uid, stated = _value(entry, _SERIES), _value(entry, _SERIES_COUNT)
        if series not in (None, uid) or not (stated.isascii() and stated.isdecimal()):
            continue
        if listed[uid] < int(stated):
            raise NetworkError(
                f"{service.server}: the server states {stated} instances of a series but lists "
                f"{listed[uid]}; fetch its series one by one, or raise the server's limit for lists"
            )


class _Service:
    """A client of a DICOMweb service with its session."""

    def __init__(self, client: Any, session: Session, server: WebServer) -> None:
        self.client, self.session, self.server = client, session, server

    def search(self, search: Callable[..., Any], **asked: Any) -> list[dict[str, Any]]:
        """Return all pages of results; some servers ignore the offset and repeat a page.

        Raises:
            NetworkError: there is no response, or it is not a list of data sets.
        """
        found: list[dict[str, Any]] = []
        while True:
            with plain_errors(self.server, self.session):
                page = search(**asked, offset=len(found))
                if not isinstance(page, list) or not all(map(_is_data_set, page)):
                    raise ValueError("not a list of data sets")
                if not (found or self.session.body.strip() or self.session.status == _NO_CONTENT):
                    raise ValueError("empty response instead of an empty list")
            new = [entry for entry in page if entry not in found[-len(page) :]] if page else []
            found += new
            if not new:
                return found

    def retrieve(self, uids: InstanceUids) -> Dataset:
        """Return an instance; raise NetworkError if it is missing, truncated or another one."""
        with warnings.catch_warnings(record=True) as seen, plain_errors(self.server, self.session):
            warnings.simplefilter("always")
            dataset: Dataset = self.client.retrieve_instance(*uids, media_types=MEDIA_TYPES)
            truncated = _is_truncated(dataset)  # before element access, which parses it
            uid = dataset.get("SOPInstanceUID")
        truncated = truncated or any("end of file" in str(each.message).lower() for each in seen)
        if truncated or not _is_complete(self.session):
            raise NetworkError(
                f"{self.server}: an instance was truncated in transfer; run this again"
            )
        if uid != uids[2]:
            raise NetworkError(f"{self.server}: the server sent another instance than requested")
        return dataset


def _is_data_set(entry: object) -> bool:
    return isinstance(entry, dict) and all(isinstance(each, dict) for each in entry.values())


def _is_truncated(dataset: Dataset) -> bool:
    """Whether the last element is shorter than stated, which pydicom accepts."""
    last = max(dataset.keys(), default=None)
    element = None if last is None else dataset.get_item(last)
    if not isinstance(element, RawDataElement) or element.length == _UNDEFINED_LENGTH:
        return False
    return len(element.value or b"") < int(element.length)


def _is_complete(session: Session) -> bool:
    """Whether a multipart response ends with its closing boundary (RFC 2046 5.1.1)."""
    message = EmailMessage()
    message["Content-Type"] = session.latest.headers["Content-Type"] if session.latest else ""
    boundary = message.get_boundary()
    if message.get_content_maintype() != "multipart" or boundary is None:
        return True
    return f"--{boundary}--".encode() in session.body[-_EPILOGUE:]


def _value(entry: dict[str, Any], tag: str) -> str:
    """Return the first value of an element in DICOM JSON, or empty."""
    values = entry.get(tag, {}).get("Value")
    return str(values[0]) if isinstance(values, list) and values else ""


def _name(uids: InstanceUids) -> str:
    return hashlib.sha256("\0".join(uids).encode()).hexdigest()[:16]
