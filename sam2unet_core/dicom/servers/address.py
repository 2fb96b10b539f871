"""Addresses of DICOM servers on the command line, and TLS settings."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, urlsplit

from sam2unet_core.errors import ConfigError

_PREFIX = "dicomweb+"
_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")  # PS3.5: printable ASCII without the backslash
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True)
class WebServer:
    """A DICOMweb service.

    Attributes:
        url: http or https, without query and trailing slash.
    """

    url: str

    def __str__(self) -> str:
        """Return the address as `--to` takes it."""
        return f"{_PREFIX}{self.url}"

    @property
    def encrypted(self) -> bool:
        """Whether the connection uses TLS."""
        return self.url.startswith("https://")


@dataclass(frozen=True)
class Node:
    """A DICOM application entity that accepts C-STORE."""

    ae_title: str
    host: str
    port: int

    def __str__(self) -> str:
        """Return the address as `--to` takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.ae_title}@{host}:{self.port}"


Destination = WebServer | Node


@dataclass(frozen=True)
class Tls:
    """TLS settings of a connection.

    Attributes:
        asked: whether TLS is requested; https and any of the files imply it.
        ca: PEM file of the authorities to trust, instead of the system's.
        cert: PEM file of the client certificate.
        key: PEM file of its key, if not in `cert`; without a passphrase.

    Raises:
        ConfigError: a file does not exist, or there is a key without a certificate.
    """

    asked: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        """Check the files."""
        for name, path in (("ca", self.ca), ("cert", self.cert), ("key", self.key)):
            if path is not None and not path.is_file():
                raise ConfigError(f"--{name} {path}: no such file")
        if self.key is not None and self.cert is None:
            raise ConfigError("--key is given without --cert; add the certificate of this key")

    @property
    def wanted(self) -> bool:
        """Whether the connection must be encrypted."""
        return self.asked or any((self.ca, self.cert, self.key))

    def context(self) -> ssl.SSLContext:
        """Return the TLS context; host names and certificates are checked.

        Raises:
            ConfigError: a file has no usable certificate or key.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise ConfigError(f"--ca {self.ca}: no certificates in PEM format") from error
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key, password=_no_passphrase)
            except OSError as error:
                raise ConfigError(
                    f"--cert {self.cert}: no matching certificate and key in PEM format"
                ) from error
        return context


def is_web_address(text: str) -> bool:
    """Whether a text has the URL prefix of a DICOMweb service."""
    return text.startswith(_PREFIX)


def parse_destination(text: str, *, tls: Tls) -> Destination:
    """Parse the value of `--to`.

    Raises:
        ConfigError: not an address, or not encrypted although TLS is requested.
    """
    if is_web_address(text):
        server, query = _split(text)
        if query:
            raise ConfigError(f"--to: the address must not have a query, got ?{query}")
        check_tls(server, tls)
        return server
    ae_title, _, place = text.rpartition("@")
    try:
        split = urlsplit(f"//{place}")
        host, port = split.hostname, split.port
    except ValueError:
        host, port = None, None
    if not host or not port or split.path or not ae_title.strip():
        raise ConfigError(
            f"--to {text!r}: expected dicomweb+https://HOST/PATH or AE@HOST:PORT, such as "
            "PACS@10.0.0.5:104"
        )
    return Node(check_ae_title(ae_title), host, port)


def parse_source(
    text: str, *, study: str | None = None, series: str | None = None
) -> tuple[WebServer, str | None, str | None]:
    """Parse `dicomweb+https://HOST/PATH?study=UID&series=UID`.

    Returns:
        the service, and the UIDs of study and series, of which one may be None.

    Raises:
        ConfigError: not such an address, or no valid UID.
    """
    server, query = _split(text)
    asked = parse_qs(query, keep_blank_values=True)
    unknown = sorted(set(asked) - {"study", "series"})
    if unknown or any(len(values) > 1 for values in asked.values()):
        raise ConfigError(f"{server}: expected ?study=UID or ?series=UID, each once at most")
    study = study or asked.get("study", [None])[0]
    series = series or asked.get("series", [None])[0]
    if study is None and series is None:
        raise ConfigError(f"{server}: add ?study=UID, ?series=UID or both")
    for name, uid in (("study", study), ("series", series)):
        if uid is not None and not is_uid(uid):
            raise ConfigError(f"{server}: the value of {name}= is not a UID")
    return server, study, series


def check_tls(server: WebServer, tls: Tls) -> None:
    """Raise ConfigError for a plain http service although TLS is requested."""
    if tls.wanted and not server.encrypted:
        raise ConfigError(f"{server}: TLS is requested; use dicomweb+https://")


def check_ae_title(text: str) -> str:
    """Return an AE title without surrounding spaces; raise ConfigError if it is invalid."""
    title = text.strip()
    if not _AE_TITLE.fullmatch(title):
        raise ConfigError(f"AE title {text!r}: expected 1 to 16 ASCII characters, no backslash")
    return title


def is_uid(text: str) -> bool:
    """Whether a text is a UID, and safe in a URL."""
    return bool(_UID.fullmatch(text)) and text.strip(".") != ""


def _split(text: str) -> tuple[WebServer, str]:
    try:
        split: SplitResult = urlsplit(text.removeprefix(_PREFIX))
        host, _ = split.hostname, split.port
    except ValueError:
        host = None
    if not host or split.scheme not in ("http", "https"):
        raise ConfigError("expected dicomweb+https://HOST/PATH or dicomweb+http://HOST/PATH")
    if split.username is not None or split.password is not None:
        raise ConfigError(
            f"{_PREFIX}{split.scheme}://{host}: the address must not contain a password, which "
            "others could see; put it into the file .netrc in your home folder"
        )
    return WebServer(f"{split.scheme}://{split.netloc}{split.path.rstrip('/')}"), split.query


def _no_passphrase() -> str:
    raise ConfigError("--key: the key has a passphrase; give a key file without one")
