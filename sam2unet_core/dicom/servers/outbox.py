"""Send files, and record what was sent where, so that a rerun resumes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from pydicom.errors import InvalidDicomError

from sam2unet_core.dicom.servers.address import Destination, Node, Tls, WebServer
from sam2unet_core.dicom.servers.node import open_node_sender
from sam2unet_core.dicom.servers.silence import silent
from sam2unet_core.dicom.servers.web import open_web_sender
from sam2unet_core.errors import NetworkError, OutputError, RefusedError
from sam2unet_core.files import file_sha256

SCHEMA = 2
"""Schema 1 recorded any DICOMweb response as success, so its lines are ignored for DICOMweb."""
_SCHEMA_OF_ANY_ANSWER = 1
NAME = "sent.jsonl"


@dataclass(frozen=True)
class Parcel:
    """A file to send.

    Attributes:
        path: below the results folder, with `/`.
        sha256: expected hash.
    """

    path: str
    sha256: str


@dataclass(frozen=True)
class SendOutcome:
    """Result of sending.

    Attributes:
        sent: number of files that this run sent.
        before: number of files that earlier runs sent.
        problems: path and reason of each file that was not sent, without identifiers.
        stopped: why the run stopped early, or empty.
        left: number of files not tried for that reason.
        warnings: path and warning of each file that the server stored with a warning.
    """

    sent: int
    before: int
    problems: tuple[tuple[str, str], ...] = ()
    stopped: str = ""
    left: int = 0
    warnings: tuple[tuple[str, str], ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all files were sent."""
        return not (self.problems or self.stopped)


class Sender(Protocol):
    """Stores one file at a time."""

    def send(self, path: Path) -> str:
        """Store a file and return the server's warning, or raise RefusedError or NetworkError."""


def send_files(
    folder: Path,
    parcels: Iterable[Parcel],
    *,
    to: Destination,
    tls: Tls,
    calling_ae: str,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> SendOutcome:
    """Send the files of a results folder that were not sent to this address before.

    Each file is recorded in `sent.jsonl` once the server confirms that it is stored. A lost
    connection ends the run; a refused file does not.

    Args:
        folder: the results folder.
        parcels: the files, in order.
        to: the address.
        tls: TLS settings.
        calling_ae: our AE title, for C-STORE.
        progress: called with (files done, total).

    Raises:
        MissingExtraError: the library is not installed.
        ConfigError: unusable TLS files.
        OutputError: the record cannot be written.
    """
    everything = list(parcels)
    record = SentRecord(folder, to)
    todo = [parcel for parcel in everything if not record.has(parcel)]
    before = len(everything) - len(todo)
    problems: list[tuple[str, str]] = []
    warnings: list[tuple[str, str]] = []
    good = []
    for parcel in todo:
        if problem := _problem(folder, parcel):
            problems.append((parcel.path, problem))
        else:
            good.append(parcel)
    sent, stopped, tried = 0, "", 0
    progress(before + len(problems), len(everything))
    try:
        with _open(to, [folder / each.path for each in good], tls, calling_ae) as sender:
            for parcel in good:
                try:
                    warning = sender.send(folder / parcel.path)
                except RefusedError as error:
                    problems.append((parcel.path, str(error)))
                else:
                    record.add(parcel)
                    sent += 1
                    if warning:
                        warnings.append((parcel.path, warning))
                tried += 1
                progress(len(everything) - len(good) + tried, len(everything))
    except NetworkError as error:
        stopped = str(error)
    return SendOutcome(sent, before, tuple(problems), stopped, len(good) - tried, tuple(warnings))


class SentRecord:
    """Record of the files sent from a results folder to one address: `sent.jsonl`.

    Args:
        folder: the results folder.
        to: the address.
    """

    def __init__(self, folder: Path, to: Destination) -> None:
        self._path, self._to = folder / NAME, str(to)
        self._sent = set(_read(self._path, self._to, web=isinstance(to, WebServer)))

    def has(self, parcel: Parcel) -> bool:
        """Whether this content was sent there under this name."""
        return parcel in self._sent

    def add(self, parcel: Parcel) -> None:
        """Record that a file was sent; raise OutputError if that cannot be written."""
        line = json.dumps(
            {
                "schema": SCHEMA,
                "path": parcel.path,
                "sha256": parcel.sha256,
                "to": self._to,
                "when": datetime.now(UTC).isoformat(timespec="seconds"),
            },
            ensure_ascii=False,
        )
        try:
            with self._path.open("a+b") as stream:
                torn = stream.seek(0, 2) > 0 and (stream.seek(-1, 2), stream.read(1))[1] != b"\n"
                stream.write(f"{chr(10) if torn else ''}{line}\n".encode())
        except OSError as error:
            raise OutputError(
                f"{self._path}: cannot be written ({error.strerror}); without it a rerun would "
                "send everything again"
            ) from error
        self._sent.add(parcel)


def _read(path: Path, to: str, *, web: bool) -> Iterator[Parcel]:
    """Yield what was sent to an address; incomplete lines are ignored."""
    accepted = {SCHEMA} if web else {SCHEMA, _SCHEMA_OF_ANY_ANSWER}
    if not path.is_file():
        return
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
            if line["schema"] in accepted and line["to"] == to:
                yield Parcel(str(line["path"]), str(line["sha256"]))
        except (ValueError, KeyError, TypeError):
            continue


def _problem(folder: Path, parcel: Parcel) -> str:
    """Return why a file cannot be sent, or nothing."""
    path = folder / parcel.path
    if not path.resolve().is_relative_to(folder.resolve()):
        return "lies outside the results folder"
    try:
        if file_sha256(path) != parcel.sha256:
            return "differs from the manifest; segment again with --redo"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


@contextmanager
def _open(to: Destination, files: Sequence[Path], tls: Tls, calling_ae: str) -> Iterator[Sender]:
    """Open the sender for an address; without files no connection is made."""
    if not files:
        yield _NoSender()
        return
    opened: AbstractContextManager[Sender] = (
        open_node_sender(to, files, tls=tls, calling_ae=calling_ae)
        if isinstance(to, Node)
        else open_web_sender(to, tls=tls)
    )
    with silent(), opened as sender:
        yield _CheckingSender(sender)


class _CheckingSender:
    """A sender that treats files that are not DICOM as refused."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def send(self, path: Path) -> str:
        """Store a file and return the server's warning."""
        try:
            return self._sender.send(path)
        except (InvalidDicomError, OSError, AttributeError) as error:
            raise RefusedError(f"cannot be read as DICOM ({type(error).__name__})") from None


class _NoSender:
    """Placeholder sender when there is nothing to send."""

    def send(self, path: Path) -> str:
        """Do nothing; never called."""
        return ""
