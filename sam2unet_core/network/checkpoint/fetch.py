"""Downloads trunk files into the cache: resumes interrupted downloads and verifies hashes."""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import requests

from sam2unet_core.errors import WeightsError, is_disk_full
from sam2unet_core.files import file_sha256
from sam2unet_core.network.checkpoint.cache import (
    TrunkEntry,
    cache_folder,
    describe,
    find_entry,
    read_index,
    record,
)
from sam2unet_core.network.checkpoint.loading import check_trunk

OnProgress = Callable[[int, int | None], None]
"""Called with the bytes received and the total (None if the server did not send it)."""

_CHUNK = 1 << 14
"""Bytes per read; a broken connection loses at most this many."""
_TIMEOUT = (15, 60)
"""Seconds to connect, and seconds between two reads."""
_BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
_RETRIED = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Retry:
    """How often to retry, and how long to wait.

    Attributes:
        attempts: connections in total.
        wait_s: seconds before the second attempt; doubles before each later one.
        sleep: the function that waits.
    """

    attempts: int = 6
    wait_s: float = 1.0
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class DownloadSource:
    """Where to download from and to, and how.

    Attributes:
        base_url: a mirror that holds `NAME.pt`; None for the official address.
        cache: folder of the trunks; None for the user's cache.
        retry: what to do when the connection breaks.
        session: a `requests` session; it honours the proxy variables.
    """

    base_url: str | None = None
    cache: Path | None = None
    retry: Retry = field(default_factory=Retry)
    session: requests.Session = field(default_factory=requests.Session)

    def url(self, entry: TrunkEntry) -> str:
        """Return the address of a trunk's file."""
        if self.base_url is None:
            return entry.url
        return f"{self.base_url.rstrip('/')}/{entry.file_name}"


def fetch(
    entry: str | TrunkEntry,
    *,
    source: DownloadSource | None = None,
    progress: OnProgress | None = None,
) -> Path:
    """Download a trunk into the cache, unless it is there, and return its path.

    An incomplete download of an earlier run is resumed. The file gets its final name only after it
    was verified: it holds the expected trunk, and its hash is the published or first seen one.

    Raises:
        WeightsError: there is no such entry; the server cannot be reached or keeps disconnecting;
            the disk is full; or the file is not that trunk (it is then deleted).
    """
    entry = find_entry(entry) if isinstance(entry, str) else entry
    source = source or DownloadSource()
    folder = source.cache or cache_folder()
    path = folder / entry.file_name
    if path.is_file():
        _check_hash(path, entry, folder)
        return path
    part = _Part(folder / f"{entry.file_name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _download(source, source.url(entry), part, progress or (lambda *_: None))
        _verify(part.path, entry, folder)
        part.path.replace(path)
        part.note.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(_disk_message(error, part.path)) from error
    return path


class _Part:
    """An incomplete download, and next to it a note of the version that the server sent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note = path.with_name(path.name + ".json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def validator(self, url: str) -> str | None:
        """Return the ETag or date of the version that was being downloaded from `url`."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return str(note["validator"]) if note["url"] == url and self.size else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def begin(self, url: str, response: requests.Response) -> None:
        """Start an empty file and note which version the server sends."""
        self.path.write_bytes(b"")
        etag = response.headers.get("ETag", "")
        weak = not etag or etag.startswith("W/")
        validator = response.headers.get("Last-Modified") if weak else etag
        self.note.unlink(missing_ok=True)
        if validator:
            text = json.dumps({"url": url, "validator": validator})
            self.note.write_text(text, encoding="utf-8")

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _download(source: DownloadSource, url: str, part: _Part, progress: OnProgress) -> None:
    """Complete `part`, retrying as often as `source` allows."""
    reason = ""
    for attempt in range(source.retry.attempts):
        if attempt:
            source.retry.sleep(source.retry.wait_s * 2 ** (attempt - 1))
        try:
            if _connect_once(source.session, url, part, progress):
                return
            reason = "the server sent a different range than requested"
        except _BROKEN as error:
            reason = _plain_reason(error)
        except _TryAgainError as error:
            reason = str(error)
        except requests.RequestException as error:
            raise WeightsError(f"{url}: download failed ({error}); check the address") from error
    raise WeightsError(
        f"{url}: gave up after {source.retry.attempts} connections ({reason}). {part.size} bytes "
        "are kept: run the same command again to resume, or copy the file to this machine and run "
        "`sam2unet weights import FILE`"
    )


class _TryAgainError(Exception):
    """The server is busy, or refused the requested range."""


def _connect_once(session: requests.Session, url: str, part: _Part, progress: OnProgress) -> bool:
    """Download the missing bytes over one connection; return whether the file is complete."""
    headers = {"Accept-Encoding": "identity"}
    validator = part.validator(url)
    if validator is not None:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": validator}
    with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        _check_status(response, url, part)
        if response.status_code != 206:
            part.begin(url, response)
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {part.size}-"):
            part.delete()
            return False
        _receive(response, part, progress)
    return True


def _check_status(response: requests.Response, url: str, part: _Part) -> None:
    status = response.status_code
    if status == 416:
        part.delete()
        raise _TryAgainError("the file on the server is shorter than the part downloaded so far")
    if status in _RETRIED:
        raise _TryAgainError(f"the server answered {status} {response.reason}")
    if status not in (200, 206):
        raise WeightsError(f"{url}: the server answered {status} {response.reason}; check the name")
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/html"):
        raise WeightsError(
            f"{url}: the server sent a web page instead of weights, perhaps the sign-in page of a "
            "proxy. Set HTTPS_PROXY, or copy the file to this machine and run "
            "`sam2unet weights import FILE`"
        )


def _receive(response: requests.Response, part: _Part, progress: OnProgress) -> None:
    """Append the response's body to the part.

    Raises:
        requests.ConnectionError: fewer bytes arrived than the server announced.
    """
    length = response.headers.get("Content-Length", "")
    total = part.size + int(length) if length.isdecimal() else None
    have = part.size
    _check_space(part, (total or have) - have)
    with part.path.open("ab") as stream:
        progress(have, total)
        for chunk in response.iter_content(_CHUNK):
            stream.write(chunk)
            have += len(chunk)
            progress(have, total)
    if total is not None and have != total:
        raise requests.ConnectionError(f"received {have} of {total} bytes")


def _check_space(part: _Part, needed: int) -> None:
    free = shutil.disk_usage(part.path.parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed} bytes are needed, {free} are free")


def _verify(path: Path, entry: TrunkEntry, folder: Path) -> None:
    """Record the trunk if it is the expected one; otherwise delete it."""
    try:
        _check_hash(path, entry, folder)
        found = describe(check_trunk(path, entry.variant))
    except WeightsError as error:
        _Part(path).delete()
        raise WeightsError(
            f"{entry.name}: the downloaded file is not this trunk and was deleted. {error}"
        ) from error
    record(folder, entry.file_name, found)


def _check_hash(path: Path, entry: TrunkEntry, folder: Path) -> None:
    seen = read_index(folder).get(entry.file_name)
    expected = entry.sha256 or (seen.sha256 if seen else None)
    found = file_sha256(path) if expected else None
    if found != expected:
        origin = "published" if entry.sha256 else "first seen"
        raise WeightsError(
            f"{path}: sha256 is {found}, but the {origin} sha256 is {expected}; delete the file "
            "and download it again, and do not trust the source if that does not help"
        )


def _plain_reason(error: Exception) -> str:
    """Return the message of the innermost cause, without its wrappers."""
    cause: BaseException = error
    while cause.args and isinstance(cause.args[0], BaseException):
        cause = cause.args[0]
    reason = getattr(cause, "reason", None) or (cause.args[0] if cause.args else cause)
    return str(reason)


def _disk_message(error: OSError, part: Path) -> str:
    if is_disk_full(error):
        return (
            f"{part.parent}: the disk is full ({error.strerror}); free some space and run the "
            "same command again to resume, or move the cache with SAM2UNET_CACHE"
        )
    return f"{part.parent}: cannot be written ({error}); check the folder, or set SAM2UNET_CACHE"
