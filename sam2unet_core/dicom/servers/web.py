"""DICOMweb: client of a service, and storing files one by one (STOW-RS, PS3.18 10.5)."""

from __future__ import annotations

import importlib
import re
import ssl
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from sam2unet_core.dicom.servers.address import Tls, WebServer, check_tls
from sam2unet_core.dicom.servers.store_answer import (
    StoreAnswer,
    describe_failure,
    describe_warning,
    read_store_answer,
)
from sam2unet_core.errors import MissingExtraError, NetworkError, RefusedError

CONNECT_S = 10.0
"""Timeout for a connection, in seconds."""
ANSWER_S = 300.0
"""Timeout for a response, in seconds: servers may write large objects to slow disks."""
_STORE_ACCEPT = "application/dicom+json, application/dicom+xml;q=0.5"
_NEVER_CHUNKED = 1 << 62
"""Disables chunked transfer, which not every server accepts."""
_PER_OBJECT = frozenset({400, 409, 413, 415, 422})
"""Status codes that concern one object, not the client or the server as a whole."""
_UNEXPECTED = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    EOFError,
    NotImplementedError,
    RecursionError,
    struct.error,
    InvalidDicomError,
)
"""Exceptions of the libraries on an unexpected response."""
_MEDIA_TYPE = re.compile(r"[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}")


class WebSender:
    """Stores files at a DICOMweb service, one request per file.

    Args:
        session: of the service.
        server: its address, for messages.
    """

    def __init__(self, session: Session, server: WebServer) -> None:
        self._session, self._server = session, server

    def send(self, path: Path) -> str:
        """Store a DICOM file, which is held in memory twice meanwhile.

        It counts as stored only if the HTTP status is a success and the response lists it.

        Returns:
            the server's warning, or empty.

        Raises:
            RefusedError: the server refuses this file, or does not confirm it.
            NetworkError: the connection failed, or it is not a DICOMweb service.
        """
        header = dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True)
        uid = str(header.SOPInstanceUID)
        boundary = uuid.uuid4().hex
        kind = f'multipart/related; type="application/dicom"; boundary="{boundary}"'
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join([head, path.read_bytes(), f"\r\n--{boundary}--\r\n".encode()])
        with plain_errors(self._server, self._session):
            response = self._session.post(
                f"{self._server.url}/studies",
                data=body,
                headers={"Content-Type": kind, "Accept": _STORE_ACCEPT},
                timeout=(CONNECT_S, ANSWER_S),
            )
            if response.status_code not in _PER_OBJECT:
                response.raise_for_status()
        return self._check_stored(uid)

    def _check_stored(self, uid: str) -> str:
        """Return the warning for an instance if the latest response lists it as stored."""
        status, summary = self._session.status, self._session.summary
        success = 200 <= status < 300
        try:
            answer = read_store_answer(self._session.kind, self._session.body)
        except (ValueError, RecursionError):
            if success:
                raise NetworkError(f"{self._server}: {_not_dicomweb(summary)}") from None
            answer = StoreAnswer()
        if uid in answer.failed:
            raise RefusedError(f"refused by the server: {summary}, {_reason(answer.failed[uid])}")
        if answer.others:
            raise RefusedError(f"refused by the server: {summary}, {_reason(answer.others[0])}")
        if not success:
            raise RefusedError(f"refused by the server: {summary}, {_reason(None)}")
        if uid not in answer.stored:
            raise RefusedError(
                f"not confirmed: {summary}, and the response does not list it as stored"
            )
        warning = answer.stored[uid]
        return "" if warning is None else f"the server warns: {describe_warning(warning)}"


class StatusError(NetworkError):
    """An HTTP error response; `status` is its code."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Session(requests.Session):
    """A session with its own certificate settings and without redirects to other servers.

    Attributes:
        latest: the latest response.
    """

    def __init__(self) -> None:
        super().__init__()
        self.latest: requests.Response | None = None
        self.max_redirects = 0

    @property
    def status(self) -> int:
        """HTTP status of the latest response; 0 before the first."""
        return 0 if self.latest is None else self.latest.status_code

    @property
    def kind(self) -> str:
        """Content type of the latest response, without parameters, in lower case."""
        header = "" if self.latest is None else self.latest.headers.get("Content-Type", "")
        return header.partition(";")[0].strip().lower()

    @property
    def body(self) -> bytes:
        """Body of the latest response."""
        return b"" if self.latest is None else self.latest.content

    @property
    def summary(self) -> str:
        """Status and content type of the latest response, for messages."""
        kind = self.kind if _MEDIA_TYPE.fullmatch(self.kind) else "no content type"
        return f"HTTP {self.status} ({kind}{'' if self.body.strip() else ', empty'})"

    def merge_environment_settings(
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        """Give `verify` of the session precedence over the environment."""
        if verify is None and self.verify is not True:
            verify = self.verify
        return super().merge_environment_settings(url, proxies, stream, verify, cert)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request, keep the response, and strip parameters from its content type."""
        self.latest = None
        response = self.latest = super().send(request, **kwargs)
        kind = response.headers.get("Content-Type", "")
        if not kind.lower().startswith("multipart/"):
            response.headers["Content-Type"] = kind.partition(";")[0].strip().lower()
        return response


@contextmanager
def open_client(server: WebServer, *, tls: Tls) -> Iterator[tuple[Session, Any]]:
    """Create the client of a service, with user and password from `.netrc`, if given there.

    Raises:
        MissingExtraError: dicomweb-client is not installed.
        ConfigError: unusable TLS files, or TLS requested with plain http.
    """
    check_tls(server, tls)
    library = _library()
    with Session() as session:
        session.headers["Accept"] = "application/dicom+json"
        if server.encrypted:
            tls.context()  # checks the files
            session.verify = str(tls.ca) if tls.ca else True
            session.cert = (str(tls.cert), str(tls.key)) if tls.key else _text(tls.cert)
        client = library.DICOMwebClient(
            server.url,
            session=session,
            chunk_size=_NEVER_CHUNKED,
            permissive_uid=True,  # checked before
            timeout=(CONNECT_S, ANSWER_S),
        )
        client.set_http_retry_params(retry=False)
        yield session, client


@contextmanager
def open_web_sender(server: WebServer, *, tls: Tls) -> Iterator[WebSender]:
    """Open a sender; see `open_client`."""
    with open_client(server, tls=tls) as (session, _):
        yield WebSender(session, server)


@contextmanager
def plain_errors(server: WebServer, session: Session) -> Iterator[None]:
    """Turn exceptions of the libraries, which contain UIDs, into messages without them.

    Raises:
        StatusError: an HTTP error.
        NetworkError: any other error.
    """
    try:
        yield
    except requests.HTTPError as error:
        status = error.response.status_code
        raise StatusError(f"{server}: {_status_message(status)}", status=status) from None
    except requests.TooManyRedirects:
        raise NetworkError(
            f"{server}: the server redirects to another address; use that one"
        ) from None
    except requests.exceptions.SSLError as error:
        raise NetworkError(f"{server}: no secure connection: {_tls_reason(error)}") from None
    except requests.Timeout:
        raise NetworkError(f"{server}: no answer in time") from None
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
        raise NetworkError(
            f"{server}: no connection, or it was lost; check address and server, then run this "
            "again"
        ) from None
    except _UNEXPECTED as error:  # includes the JSON errors of requests
        if session.latest is None:
            raise NetworkError(f"{server}: request failed ({type(error).__name__})") from None
        raise NetworkError(f"{server}: {_not_dicomweb(session.summary)}") from None
    except requests.RequestException as error:
        raise NetworkError(f"{server}: request failed ({type(error).__name__})") from None
    except OSError:
        raise NetworkError(
            f"{server}: no connection: the certificate file cannot be read; check "
            "REQUESTS_CA_BUNDLE"
        ) from None


def tls_reason(error: BaseException) -> str:
    """Explain a TLS error and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{error.verify_message}; name the authority to trust with --ca"
    reason = getattr(error, "reason", None)
    text = reason.replace("_", " ").lower() if isinstance(reason, str) else "the handshake failed"
    return f"{text}; check --cert, --key and that the server speaks TLS"


def _tls_reason(error: BaseException) -> str:
    """Explain the TLS error that requests and urllib3 have wrapped."""
    waiting: list[object] = [error]
    while waiting:
        found = waiting.pop()
        if isinstance(found, ssl.SSLError):
            return tls_reason(found)
        if isinstance(found, BaseException):
            waiting += [*found.args, getattr(found, "reason", None)]
    return tls_reason(error)


def _status_message(status: int) -> str:
    advice = {
        401: "user and password required; put them into .netrc",
        403: "this user lacks the permission",
        404: "not found; check the address and the UID",
        429: "it is busy; run this again later",
        503: "it is busy; run this again later",
    }
    return f"the server answered HTTP {status}: {advice.get(status, 'see the server log')}"


def _not_dicomweb(summary: str) -> str:
    return (
        f"the server answered {summary}, which is not a DICOMweb response; check the address, and "
        "whether it requires a login"
    )


def _reason(code: int | None) -> str:
    return "no reason given" if code is None else f"failure reason {describe_failure(code)}"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _library() -> Any:
    try:
        return importlib.import_module("dicomweb_client.api")
    except ImportError as error:
        raise MissingExtraError(
            "DICOMweb needs dicomweb-client, which is not installed: pip install 'sam2unet[send]'"
        ) from error
