"""Zip, tar and gz files named as inputs: unpacked one file after another, within limits.

What reads them is imported with the first archive: every run asks whether an input is one.
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

Kind = Literal["zip", "tar", "gz"]
RATIO = 100
"""How many times its own size an archive may take unpacked, beyond `ALLOWED_BYTES`."""
ALLOWED_BYTES = 2**26
SPARE_BYTES = 2**30
"""What has to be left free on the disk that archives are unpacked to."""
MOST_MEMBERS = 1_000_000
_CHUNK = 1 << 20
_LARGEST_READ = 1 << 24
_DEEPEST = 64
_DRIVE = re.compile(r"[A-Za-z]:")
_UNREAD = "is packed in a way that is not read: unpack it yourself"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_GZ = b"\x1f\x8b"
_TAR_PACKED = (_GZ, b"BZh", b"\xfd7zXZ\0")
_OTHERS = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!\x1a\x07": "rar"}
_NAMED_GZ = (".nii.gz", ".img.gz", ".hdr.gz")


@dataclass(frozen=True)
class _Member:
    """A file in an archive.

    Attributes:
        name: its path there.
        skip: why it is left out, or empty.
        last: whether what follows cannot be read where this one is broken, as in a tar.
    """

    name: str
    skip: str = ""
    last: bool = False


def archive_kind(path: Path) -> Kind | None:
    """Return what kind of archive a file is, by its content; None for anything else.

    Compressed volumes, such as `.nii.gz`, are none.

    Raises:
        OSError: it cannot be read.
        InputError: it is an archive of a kind that is not read.
    """
    if path.name.lower().endswith((*_NAMED_GZ, ".mgz")):
        return None
    with path.open("rb") as stream:
        start = stream.read(512)
    for magic, name in _OTHERS.items():
        if start.startswith(magic):
            raise InputError(f"a {name} archive is not read; unpack it first")
    if start.startswith(_ZIP):
        return "zip"
    if start[257:262] == b"ustar" or (start.startswith(_TAR_PACKED) and _holds_tar(path)):
        return "tar"
    return "gz" if start.startswith(_GZ) else None


def unpack(path: Path, folder: Path) -> Iterator[Skipped]:
    """Unpack an archive's files into a folder, and yield those that are left out.

    Links, devices, encrypted files and names that lead out of the folder are left out. An archive
    that ends early leaves what came before; one that grows beyond the limits leaves nothing.

    Args:
        path: a file of which `archive_kind` says the kind.
        folder: is made; empty or not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    room = _Room(path, folder)
    try:
        for member, stream in _members(path):
            room.count()
            reason = _left_out(member, stream, room, folder)
            if reason:
                message = f"{path.name}: a file in it {reason}; left out"
                yield Skipped(path, Reason.CORRUPT, message, f"{path.name}/{member.name}")
        if not room.members:
            yield Skipped(path, Reason.NOT_AN_IMAGE, f"{path.name}: holds no files", path.name)
    except InputError as error:
        shutil.rmtree(folder, ignore_errors=True)
        yield Skipped(path, error.reason, f"{path.name}: {error}", path.name)
    except _broken() as error:
        early = type(error).__name__ in ("EOFError", "ReadError") or "not a zip" in str(error)
        what = "the archive ends early" if early else "the archive is broken"
        message = f"{path.name}: {what}; copy it again"
        yield Skipped(path, Reason.TRUNCATED if early else Reason.CORRUPT, message, path.name)
    except OSError as error:
        message = f"{path.name}: cannot be read ({error.strerror or type(error).__name__})"
        yield Skipped(path, Reason.CORRUPT, message, path.name)


def _left_out(member: _Member, stream: IO[bytes], room: _Room, folder: Path) -> str:
    """Unpack a file; return why it is left out, empty where it is not.

    Raises:
        InputError: the archive is larger than it may be.
        Exception: what follows in the archive cannot be read.
    """
    reason = member.skip or _misplaced(member.name)
    if reason:
        return reason
    try:
        room.write(stream, folder.joinpath(*_parts(member.name)))
    except OSError as error:
        return f"cannot be unpacked ({error.strerror or 'broken'})"
    except _broken() as error:
        if member.last:
            raise
        return _UNREAD if isinstance(error, NotImplementedError) else "is broken"
    return ""


class _Room:
    """Writes files while the archive stays within its limits."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._allowed = max(ALLOWED_BYTES, RATIO * path.stat().st_size)
        self._folder = folder
        self._bytes = self.members = 0

    def count(self) -> None:
        """Count a file, whether it is written or not.

        Raises:
            InputError: there are too many.
        """
        self.members += 1
        if self.members > MOST_MEMBERS:
            raise InputError(f"holds more than {MOST_MEMBERS} files", reason=Reason.TOO_LARGE)

    def write(self, stream: IO[bytes], target: Path) -> None:
        """Write one file.

        Raises:
            InputError: the archive is larger than it may be.
            OSError: the file cannot be written.
        """
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
                f"its files take more than {RATIO} times its own size, as no studies do; unpack it "
                "yourself if it is sound",
                reason=Reason.TOO_LARGE,
            )
        free = shutil.disk_usage(self._folder).free
        if free - size < SPARE_BYTES:
            raise InputError(
                f"no room to unpack it: {free / 2**30:.1f} GiB are free; set TMPDIR to a larger "
                "disk, or unpack it yourself",
                reason=Reason.TOO_LARGE,
            )


def _members(path: Path) -> Iterator[tuple[_Member, IO[bytes]]]:
    kind = archive_kind(path)
    if kind == "zip":
        yield from _zipped(path)
    elif kind == "tar":
        yield from _tarred(path)
    else:
        import gzip  # noqa: PLC0415 - see above

        name = path.stem if path.suffix.lower() == ".gz" else path.name
        with gzip.open(path) as stream:
            yield _Member(name, last=True), cast(IO[bytes], stream)


def _zipped(path: Path) -> Iterator[tuple[_Member, IO[bytes]]]:
    import zipfile  # noqa: PLC0415 - see above

    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            link = info.external_attr >> 28 == 0xA  # a link in the upper half, as Unix has it
            if info.flag_bits & 1 or link:
                reason = "is a link" if link else "is encrypted: unpack it yourself"
                yield _Member(info.filename, reason), io.BytesIO()
                continue
            yield _Member(info.filename), cast(IO[bytes], _Opened(archive, info))


def _tarred(path: Path) -> Iterator[tuple[_Member, IO[bytes]]]:
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
                yield _Member(info.name, last=True), content


class _Opened:
    """A file in a zip, opened when it is first read."""

    def __init__(self, archive: ZipFile, info: ZipInfo) -> None:
        self._archive, self._info = archive, info
        self._stream: IO[bytes] | None = None

    def read(self, size: int) -> bytes:
        """Read up to so many bytes."""
        if self._stream is None:
            self._stream = self._archive.open(self._info)
        part = self._stream.read(size)
        if not part:
            self._stream.close()
        return part


class _Careful:
    """A stream that hands out no more than `_LARGEST_READ` at once: headers are read whole."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        """Read up to so many bytes.

        Raises:
            InputError: too many are asked for.
        """
        if not 0 <= size <= _LARGEST_READ:
            raise InputError(
                f"a header in it takes {size / 2**20:.0f} MiB", reason=Reason.TOO_LARGE
            )
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
        yield cast(IO[bytes], _Careful(stream))


def _holds_tar(path: Path) -> bool:
    import tarfile  # noqa: PLC0415 - see above

    try:
        with _unpacked_stream(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            return archive.next() is not None
    except Exception:  # no tar, or so broken that it is told when it is read
        return False


def _broken() -> tuple[type[Exception], ...]:
    """Return what the readers raise on archives that are broken or end early."""
    import gzip  # noqa: PLC0415 - see above
    import lzma  # noqa: PLC0415
    import tarfile  # noqa: PLC0415
    import zipfile  # noqa: PLC0415
    import zlib  # noqa: PLC0415

    own = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
    return (*own, EOFError, NotImplementedError, ValueError, RuntimeError)


def _misplaced(name: str) -> str:
    parts = _parts(name)
    outside = not parts or ".." in parts or name.startswith(("/", "\\")) or _DRIVE.match(parts[0])
    if outside or "\0" in name:
        return "has a name that leads out of it"
    return "lies in too many folders" if len(parts) > _DEEPEST else ""


def _parts(name: str) -> list[str]:
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
