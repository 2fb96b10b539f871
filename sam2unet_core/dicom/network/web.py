"""DICOMweb: the client of a service, and one file stored at a time (STOW-RS, PS3.18 10.5)."""

from __future__ import annotations

import importlib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from pydicom import dcmread

from sam2unet_core.dicom.network.address import Tls, WebServer, check_tls
from sam2unet_core.errors import MissingExtraError, NetworkError, RefusedError

CONNECT_S = 10.0
"""Seconds that a connection may take."""
ANSWER_S = 300.0
"""Seconds that a server may be silent: it may be writing a large object to a slow disk."""
_NEVER_CHUNKED = 1 << 62
"""Bodies are sent with their length: not every server takes the other kind."""
_THIS_OBJECT = frozenset({400, 409, 413, 415, 422})
"""Answers that are about one object, not about who we are or how the server is."""


class WebSender:
    """Stores files at a DICOMweb service, one request each.

    Args:
        session: of the service.
        client: of the service.
        server: its address, for messages.
    """

    def __init__(self, session: Session, client: Any, server: WebServer) -> None:
        self._session, self._client, self._server = session, client, server

    def send(self, path: Path) -> None:
        """Store a DICOM file; it is held in memory meanwhile.

        Raises:
            RefusedError: the server does not take this file.
            NetworkError: the server cannot be spoken with any more.
        """
        dataset = dcmread(path)
        try:
            with plain_errors(self._server):
                answer = self._client.store_instances([dataset])
        except StatusError as error:
            if error.status in _THIS_OBJECT:
                raise RefusedError(f"refused by the server: HTTP {error.status}") from error
            raise
        failed = getattr(answer, "FailedSOPSequence", None)
        if failed:
            code = getattr(failed[0], "FailureReason", None)
            reason = "no reason given" if code is None else f"failure reason 0x{code:04X}"
            raise RefusedError(f"refused by the server: {reason}")
        if self._session.status != requests.codes.ok and "ReferencedSOPSequence" not in answer:
            raise RefusedError(f"not known to be stored: HTTP {self._session.status}")


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
        status: HTTP status of the latest answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.status = 0
        self.max_redirects = 0

    def merge_environment_settings(
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        """Let `verify` of the session go before that of the environment."""
        if verify is None and self.verify is not True:
            verify = self.verify
        return super().merge_environment_settings(url, proxies, stream, verify, cert)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request; note the status, and name JSON and XML plainly as the client wants."""
        response = super().send(request, **kwargs)
        self.status = response.status_code
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
    with open_client(server, tls=tls) as (session, client):
        yield WebSender(session, client, server)


@contextmanager
def plain_errors(server: WebServer) -> Iterator[None]:
    """Turn what the libraries raise, with UIDs in it, into messages without.

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
    except requests.RequestException as error:
        raise NetworkError(f"{server}: no exchange ({type(error).__name__})") from None
    except OSError:
        raise NetworkError(
            f"{server}: no connection: a file of certificates cannot be read; check "
            "REQUESTS_CA_BUNDLE"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise NetworkError(
            f"{server}: the answer is not DICOMweb's ({type(error).__name__}); check the path"
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


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _library() -> Any:
    try:
        return importlib.import_module("dicomweb_client.api")
    except ImportError as error:
        raise MissingExtraError(
            "DICOMweb needs dicomweb-client, which is not installed: pip install 'sam2unet[send]'"
        ) from error
