"""DICOMweb: the client of a service, and one file stored at a time (STOW-RS, PS3.18 10.5)."""

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
from sam2unet_core.dicom.servers.reasons import failure_words, warning_words
from sam2unet_core.dicom.servers.store_answer import StoreAnswer, read_store_answer
from sam2unet_core.errors import MissingExtraError, NetworkError, RefusedError

CONNECT_S = 10.0
"""Seconds that a connection may take."""
ANSWER_S = 300.0
"""Seconds that a server may be silent: it may be writing a large object to a slow disk."""
_STORE_ACCEPT = "application/dicom+json, application/dicom+xml;q=0.5"
_NEVER_CHUNKED = 1 << 62
"""Bodies are sent with their length: not every server takes the other kind."""
_THIS_OBJECT = frozenset({400, 409, 413, 415, 422})
"""Answers that are about one object, not about who we are or how the server is."""
_BROKEN = (
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
"""What the libraries raise where an answer is not what was asked for."""
_MEDIA_TYPE = re.compile(r"[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}")


class WebSender:
    """Stores files at a DICOMweb service, one request each.

    Args:
        session: of the service.
        server: its address, for messages.
    """

    def __init__(self, session: Session, server: WebServer) -> None:
        self._session, self._server = session, server

    def send(self, path: Path) -> str:
        """Store a DICOM file; it is held in memory meanwhile, twice.

        It is stored if the server's answer names it so, whatever the HTTP status promises.

        Returns:
            the server's warning, if it has stored the file with one.

        Raises:
            RefusedError: the server does not take this file, or does not say that it did.
            NetworkError: the server cannot be spoken with any more, or is no DICOMweb service.
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
            if response.status_code not in _THIS_OBJECT:
                response.raise_for_status()
        return self._judge(uid)

    def _judge(self, uid: str) -> str:
        """Return the warning of an instance that the latest answer names as stored."""
        status, said = self._session.status, self._session.said
        good = 200 <= status < 300
        try:
            answer = read_store_answer(self._session.kind, self._session.body)
        except (ValueError, RecursionError):
            if good:
                raise NetworkError(f"{self._server}: {_no_service(said)}") from None
            answer = StoreAnswer()
        if uid in answer.failed:
            raise RefusedError(f"refused by the server: {said}, {_reason(answer.failed[uid])}")
        if answer.others:
            raise RefusedError(f"refused by the server: {said}, {_reason(answer.others[0])}")
        if not good:
            raise RefusedError(f"refused by the server: {said}, {_reason(None)}")
        if uid not in answer.stored:
            raise RefusedError(
                f"not known to be stored: {said}, and the answer does not name it as stored"
            )
        warning = answer.stored[uid]
        return "" if warning is None else f"the server warns: {warning_words(warning)}"


class StatusError(NetworkError):
    """A server's answer that says no.

    Args:
        message: for people.
        status: the HTTP status.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Session(requests.Session):
    """A session that trusts what it was told to, and sends nothing to any other server.

    Attributes:
        latest: the latest answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.latest: requests.Response | None = None
        self.max_redirects = 0

    @property
    def status(self) -> int:
        """HTTP status of the latest answer; 0 before the first."""
        return 0 if self.latest is None else self.latest.status_code

    @property
    def kind(self) -> str:
        """Content type of the latest answer, without parameters, in lower case."""
        header = "" if self.latest is None else self.latest.headers.get("Content-Type", "")
        return header.partition(";")[0].strip().lower()

    @property
    def body(self) -> bytes:
        """What the latest answer holds."""
        return b"" if self.latest is None else self.latest.content

    @property
    def said(self) -> str:
        """Status and content type of the latest answer, for people."""
        kind = self.kind if _MEDIA_TYPE.fullmatch(self.kind) else "no content type"
        return f"HTTP {self.status} ({kind}{'' if self.body.strip() else ', empty'})"

    def merge_environment_settings(
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        """Let `verify` of the session go before that of the environment."""
        if verify is None and self.verify is not True:
            verify = self.verify
        return super().merge_environment_settings(url, proxies, stream, verify, cert)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request; keep the answer, and name JSON and XML plainly as the client wants."""
        self.latest = None
        response = self.latest = super().send(request, **kwargs)
        kind = response.headers.get("Content-Type", "")
        if not kind.lower().startswith("multipart/"):
            response.headers["Content-Type"] = kind.partition(";")[0].strip().lower()
        return response


@contextmanager
def open_client(server: WebServer, *, tls: Tls) -> Iterator[tuple[Session, Any]]:
    """Make the client of a service; user and password come from `.netrc`, if they are there.

    Raises:
        MissingExtraError: dicomweb-client is not installed.
        ConfigError: files for TLS that cannot be used, or TLS asked for with plain http.
    """
    check_tls(server, tls)
    library = _library()
    with Session() as session:
        session.headers["Accept"] = "application/dicom+json"
        if server.encrypted:
            tls.context()  # says what is wrong with the files
            session.verify = str(tls.ca) if tls.ca else True
            session.cert = (str(tls.cert), str(tls.key)) if tls.key else _text(tls.cert)
        client = library.DICOMwebClient(
            server.url,
            session=session,
            chunk_size=_NEVER_CHUNKED,
            permissive_uid=True,  # checked before they get here
            timeout=(CONNECT_S, ANSWER_S),
        )
        client.set_http_retry_params(retry=False)
        yield session, client


@contextmanager
def open_web_sender(server: WebServer, *, tls: Tls) -> Iterator[WebSender]:
    """Make a sender; see `open_client`."""
    with open_client(server, tls=tls) as (session, _):
        yield WebSender(session, server)


@contextmanager
def plain_errors(server: WebServer, session: Session) -> Iterator[None]:
    """Turn what the libraries raise, with UIDs in it, into messages without.

    Args:
        server: its address, for messages.
        session: what was said last with it.

    Raises:
        StatusError: the server said no.
        NetworkError: anything else.
    """
    try:
        yield
    except requests.HTTPError as error:
        status = error.response.status_code
        raise StatusError(f"{server}: {_said(status)}", status=status) from None
    except requests.TooManyRedirects:
        raise NetworkError(
            f"{server}: the server points to another address; give that one"
        ) from None
    except requests.exceptions.SSLError as error:
        raise NetworkError(f"{server}: no secure connection: {_tls_reason(error)}") from None
    except requests.Timeout:
        raise NetworkError(f"{server}: no answer in time") from None
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
        raise NetworkError(
            f"{server}: no connection, or it broke; check address and server, then run this again"
        ) from None
    except _BROKEN as error:  # the errors of requests that are about JSON are among them
        unknown = session.latest is None
        told = f"no exchange ({type(error).__name__})" if unknown else _no_service(session.said)
        raise NetworkError(f"{server}: {told}") from None
    except requests.RequestException as error:
        raise NetworkError(f"{server}: no exchange ({type(error).__name__})") from None
    except OSError:
        raise NetworkError(
            f"{server}: no connection: a file of certificates cannot be read; check "
            "REQUESTS_CA_BUNDLE"
        ) from None


def tls_reason(error: BaseException) -> str:
    """Return what is wrong with a connection, and what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{error.verify_message}; name the authority to trust with --ca"
    reason = getattr(error, "reason", None)
    told = reason.replace("_", " ").lower() if isinstance(reason, str) else "the handshake failed"
    return f"{told}; check --cert, --key and that the server speaks TLS"


def _tls_reason(error: BaseException) -> str:
    """Look for the cause that requests and urllib3 have wrapped."""
    waiting: list[object] = [error]
    while waiting:
        found = waiting.pop()
        if isinstance(found, ssl.SSLError):
            return tls_reason(found)
        if isinstance(found, BaseException):
            waiting += [*found.args, getattr(found, "reason", None)]
    return tls_reason(error)


def _said(status: int) -> str:
    advice = {
        401: "it wants a user and password; put them into .netrc",
        403: "this user may not do that",
        404: "nothing is there; check the address and the UID",
        429: "it is busy; run this again later",
        503: "it is busy; run this again later",
    }
    return f"the server answered HTTP {status}: {advice.get(status, 'see its log')}"


def _no_service(said: str) -> str:
    return (
        f"the server answered {said}, which is not DICOMweb's; check the address, and whether a "
        "login stands before it"
    )


def _reason(code: int | None) -> str:
    return "no reason given" if code is None else f"failure reason {failure_words(code)}"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _library() -> Any:
    try:
        return importlib.import_module("dicomweb_client.api")
    except ImportError as error:
        raise MissingExtraError(
            "DICOMweb needs dicomweb-client, which is not installed: pip install 'sam2unet[send]'"
        ) from error
