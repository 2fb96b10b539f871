"""Zip, tar and gz inputs, unpacked within limits on size and number of files.

The archive libraries are imported with the first archive, since every run imports this module.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast

from sam2unet_core.errors import InputError, Reason
from sam2unet_core.types import Skipped

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

ArchiveKind = Literal["zip", "tar", "gz"]
MAX_RATIO = 100
"""Largest allowed ratio of unpacked to packed size; `ALLOWED_BYTES` are always allowed."""
ALLOWED_BYTES = 2**26
MIN_FREE_BYTES = 2**30
"""Bytes that must stay free on the disk that archives are unpacked to."""
MAX_MEMBERS = 1_000_000
_CHUNK = 1 << 20
_MAX_READ = 1 << 24
_MAX_DEPTH = 64
_DRIVE = re.compile(r"[A-Za-z]:")
_UNSUPPORTED_COMPRESSION = "uses an unsupported compression method: unpack it yourself"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_GZ = b"\x1f\x8b"
_TAR_PACKED = (_GZ, b"BZh", b"\xfd7zXZ\0")
_UNSUPPORTED = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!\x1a\x07": "rar"}
_VOLUME_SUFFIXES = (".nii.gz", ".img.gz", ".hdr.gz")


@dataclass(frozen=True)
class _Member:
    """A file in an archive.

    Attributes:
        name: its path in the archive.
        skip: why it is skipped, or empty.
        sequential: whether nothing after it can be read if it is broken, as in a tar.
    """

    name: str
    skip: str = ""
    sequential: bool = False


def archive_kind(path: Path) -> ArchiveKind | None:
    """Return the kind of archive by content; None for other files and for `.nii.gz` volumes.

    Raises:
        OSError: it cannot be read.
        InputError: an archive of an unsupported kind.
    """
    if path.name.lower().endswith((*_VOLUME_SUFFIXES, ".mgz")):
        return None
    with path.open("rb") as stream:
        start = stream.read(512)
    for magic, name in _UNSUPPORTED.items():
        if start.startswith(magic):
            raise InputError(f"{name} archives are not supported; unpack it first")
    if start.startswith(_ZIP):
        return "zip"
    if start[257:262] == b"ustar" or (start.startswith(_TAR_PACKED) and _holds_tar(path)):
        return "tar"
    return "gz" if start.startswith(_GZ) else None


def unpack(path: Path, folder: Path) -> Iterator[Skipped]:
    """Unpack an archive into a folder, and yield the files that are skipped.

    Links, devices, encrypted files and names that lead out of the folder are skipped. A truncated
    archive leaves the files before the break; one that exceeds the limits leaves nothing.

    Args:
        path: an archive, as recognised by `archive_kind`.
        folder: created if missing; must be empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer = _LimitedWriter(path, folder)
    try:
        for member, stream in _members(path):
            writer.count()
            reason = _extract(member, stream, writer, folder)
            if reason:
                message = f"{path.name}: a file in it {reason}; skipped"
                yield Skipped(path, Reason.CORRUPT, message, f"{path.name}/{member.name}")
        if not writer.members:
            message = f"{path.name}: the archive is empty"
            yield Skipped(path, Reason.NOT_AN_IMAGE, message, path.name)
    except InputError as error:
        shutil.rmtree(folder, ignore_errors=True)
        yield Skipped(path, error.reason, f"{path.name}: {error}", path.name)
    except _archive_errors() as error:
        truncated = type(error).__name__ in ("EOFError", "ReadError") or "not a zip" in str(error)
        what = "truncated" if truncated else "damaged"
        code = Reason.TRUNCATED if truncated else Reason.CORRUPT
        message = f"{path.name}: the archive is {what}; copy it again"
        yield Skipped(path, code, message, path.name)
    except OSError as error:
        message = f"{path.name}: cannot be read ({error.strerror or type(error).__name__})"
        yield Skipped(path, Reason.CORRUPT, message, path.name)


def _extract(member: _Member, stream: IO[bytes], writer: _LimitedWriter, folder: Path) -> str:
    """Unpack a file; return why it is skipped, or nothing.

    Raises:
        InputError: the archive exceeds its limits.
        Exception: the rest of the archive cannot be read.
    """
    reason = member.skip or _unsafe_path(member.name)
    if reason:
        return reason
    try:
        writer.write(stream, folder.joinpath(*_parts(member.name)))
    except OSError as error:
        return f"cannot be unpacked ({error.strerror or 'damaged'})"
    except _archive_errors() as error:
        if member.sequential:
            raise
        return _UNSUPPORTED_COMPRESSION if isinstance(error, NotImplementedError) else "is damaged"
    return ""


class _LimitedWriter:
    """Writes files as long as the archive stays within its limits."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._allowed = max(ALLOWED_BYTES, MAX_RATIO * path.stat().st_size)
        self._folder = folder
        self._bytes = self.members = 0

    def count(self) -> None:
        """Count a file, written or not; raise InputError if there are too many."""
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise InputError(f"holds more than {MAX_MEMBERS} files", reason=Reason.TOO_LARGE)

    def write(self, stream: IO[bytes], target: Path) -> None:
        """Write one file; raise InputError if the archive exceeds its limits."""
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("xb") as file:
                while part := stream.read(_CHUNK):
                    self._bytes += len(part)
                    self._check(len(part))
                    file.write(part)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def _check(self, size: int) -> None:
        if self._bytes > self._allowed:
            raise InputError(
                f"its files take more than {MAX_RATIO} times its own size; if you trust it, unpack "
                "it yourself",
                reason=Reason.TOO_LARGE,
            )
        free = shutil.disk_usage(self._folder).free
        if free - size < MIN_FREE_BYTES:
            raise InputError(
                f"no space to unpack it: {free / 2**30:.1f} GiB are free; set TMPDIR to a larger "
                "disk, or unpack it yourself",
                reason=Reason.TOO_LARGE,
            )


def _members(path: Path) -> Iterator[tuple[_Member, IO[bytes]]]:
    kind = archive_kind(path)
    if kind == "zip":
        yield from _zip_members(path)
    elif kind == "tar":
        yield from _tar_members(path)
    else:
        import gzip  # noqa: PLC0415 - see above

        name = path.stem if path.suffix.lower() == ".gz" else path.name
        with gzip.open(path) as stream:
            yield _Member(name, sequential=True), cast(IO[bytes], stream)


def _zip_members(path: Path) -> Iterator[tuple[_Member, IO[bytes]]]:
    import zipfile  # noqa: PLC0415 - see above

    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            link = info.external_attr >> 28 == 0xA  # Unix file type: a symbolic link
            if info.flag_bits & 1 or link:
                reason = "is a link" if link else "is encrypted: unpack it yourself"
                yield _Member(info.filename, reason), io.BytesIO()
                continue
            yield _Member(info.filename), cast(IO[bytes], _LazyMember(archive, info))


def _tar_members(path: Path) -> Iterator[tuple[_Member, IO[bytes]]]:
    import tarfile  # noqa: PLC0415 - see above

    with _unpacked_stream(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        for info in archive:
            if info.isdir():
                continue
            content = archive.extractfile(info) if info.isfile() else None
            if content is None:
                yield _Member(info.name, "is a link or a device"), io.BytesIO()
                continue
            with closing(content):
                yield _Member(info.name, sequential=True), content


class _LazyMember:
    """A file in a zip, opened when it is first read."""

    def __init__(self, archive: ZipFile, info: ZipInfo) -> None:
        self._archive, self._info = archive, info
        self._stream: IO[bytes] | None = None

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        if self._stream is None:
            self._stream = self._archive.open(self._info)
        part = self._stream.read(size)
        if not part:
            self._stream.close()
        return part


class _LimitedStream:
    """A stream that refuses reads above `_MAX_READ`, since tarfile reads headers whole."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes; raise InputError if that is too many."""
        if not 0 <= size <= _MAX_READ:
            raise InputError(f"a header in it has {size / 2**20:.0f} MiB", reason=Reason.TOO_LARGE)
        return self._stream.read(size)


@contextmanager
def _unpacked_stream(path: Path) -> Iterator[IO[bytes]]:
    """Open a tar file, decompressed."""
    import bz2  # noqa: PLC0415 - see above
    import gzip  # noqa: PLC0415
    import lzma  # noqa: PLC0415

    with path.open("rb") as file:
        start = file.read(6)
    opener: Any = {_GZ: gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}.get(start[:2], open)
    with opener(path, "rb") as stream:
        yield cast(IO[bytes], _LimitedStream(stream))


def _holds_tar(path: Path) -> bool:
    import tarfile  # noqa: PLC0415 - see above

    try:
        with _unpacked_stream(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            return archive.next() is not None
    except Exception:  # not a tar, or broken and reported when it is read
        return False


def _archive_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that readers raise on damaged or truncated archives."""
    import gzip  # noqa: PLC0415 - see above
    import lzma  # noqa: PLC0415
    import tarfile  # noqa: PLC0415
    import zipfile  # noqa: PLC0415
    import zlib  # noqa: PLC0415

    own = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
    return (*own, EOFError, NotImplementedError, ValueError, RuntimeError)


def _unsafe_path(name: str) -> str:
    """Return why a member must not be unpacked under its name, or nothing."""
    parts = _parts(name)
    outside = not parts or ".." in parts or name.startswith(("/", "\\")) or _DRIVE.match(parts[0])
    if outside or "\0" in name:
        return "has a path outside the archive"
    return "is nested too deeply" if len(parts) > _MAX_DEPTH else ""


def _parts(name: str) -> list[str]:
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
