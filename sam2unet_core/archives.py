"""Zip, tar and gz files named as inputs: unpacked one file after another, within limits.

What reads them is imported with the first archive: every run asks whether an input is one.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from sam2unet_core.errors import InputError
from sam2unet_core.types import Skipped

Kind = Literal["zip", "tar", "gz"]
RATIO = 100
"""How many times its own size an archive may take unpacked, beyond `ALLOWED_BYTES`."""
ALLOWED_BYTES = 2**26
SPARE_BYTES = 2**30
"""What has to be left free on the disk that archives are unpacked to."""
MOST_MEMBERS = 1_000_000
_CHUNK = 1 << 20
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_GZ = b"\x1f\x8b"
_TAR_PACKED = (_GZ, b"BZh", b"\xfd7zXZ\0")
_OTHERS = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!\x1a\x07": "rar"}
_NAMED_GZ = (".nii.gz", ".img.gz", ".hdr.gz")


@dataclass(frozen=True)
class _Member:
    """A file in an archive; `skip` says why it is left out, if it is."""

    name: str
    skip: str = ""


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
            reason = member.skip or _misplaced(member.name)
            if reason:
                message = f"{path.name}: {reason}, left out"
                yield Skipped(path, "corrupt", message, f"{path.name}/{member.name}")
                continue
            try:
                room.write(stream, folder.joinpath(*_parts(member.name)))
            except OSError as error:
                message = f"{path.name}: a file in it cannot be unpacked ({error.strerror})"
                yield Skipped(path, "corrupt", message, f"{path.name}/{member.name}")
    except InputError as error:
        shutil.rmtree(folder, ignore_errors=True)
        yield Skipped(path, error.reason, f"{path.name}: {error}", path.name)
    except _broken() as error:
        ended = type(error).__name__ in ("EOFError", "ReadError") or "not a zip" in str(error)
        what = "the archive ends early" if ended else "the archive is broken"
        message = f"{path.name}: {what}; copy it again"
        yield Skipped(path, "truncated" if ended else "corrupt", message, path.name)
    except OSError as error:
        message = f"{path.name}: cannot be read ({error.strerror or type(error).__name__})"
        yield Skipped(path, "corrupt", message, path.name)


class _Room:
    """Writes files while the archive stays within its limits."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._allowed = max(ALLOWED_BYTES, RATIO * path.stat().st_size)
        self._folder = folder
        self._bytes = self._members = 0

    def write(self, stream: IO[bytes], target: Path) -> None:
        """Write one file.

        Raises:
            InputError: the archive is larger than it may be.
            OSError: the file cannot be written.
        """
        self._members += 1
        if self._members > MOST_MEMBERS:
            raise InputError(f"holds more than {MOST_MEMBERS} files", reason="too_large")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            while part := stream.read(_CHUNK):
                self._bytes += len(part)
                self._check(len(part))
                file.write(part)

    def _check(self, size: int) -> None:
        if self._bytes > self._allowed:
            raise InputError(
                f"its files take more than {RATIO} times its own size, as no studies do; unpack it "
                "yourself if it is sound",
                reason="too_large",
            )
        free = shutil.disk_usage(self._folder).free
        if free - size < SPARE_BYTES:
            raise InputError(
                f"no room to unpack it: {free / 2**30:.1f} GiB are free; set TMPDIR to a larger "
                "disk, or unpack it yourself",
                reason="too_large",
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
            yield _Member(name), cast(IO[bytes], stream)


def _zipped(path: Path) -> Iterator[tuple[_Member, IO[bytes]]]:
    import zipfile  # noqa: PLC0415 - see above

    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            link = info.external_attr >> 28 == 0xA  # a link in the upper half, as Unix has it
            if info.flag_bits & 1 or link:
                reason = "a link" if link else "an encrypted file (unpack it yourself)"
                yield _Member(info.filename, reason), io.BytesIO()
                continue
            with archive.open(info) as stream:
                yield _Member(info.filename), stream


def _tarred(path: Path) -> Iterator[tuple[_Member, IO[bytes]]]:
    import tarfile  # noqa: PLC0415 - see above

    with tarfile.open(path, "r:*") as archive:
        for info in archive:
            if info.isdir():
                continue
            stream = archive.extractfile(info) if info.isfile() else None
            if stream is None:
                yield _Member(info.name, "a link or a device"), io.BytesIO()
                continue
            with closing(stream):
                yield _Member(info.name), stream


def _holds_tar(path: Path) -> bool:
    import tarfile  # noqa: PLC0415 - see above

    try:
        with tarfile.open(path, "r:*") as archive:
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
    outside = not parts or ".." in parts or name.startswith(("/", "\\")) or ":" in parts[0]
    return "a name that leads out of it" if outside or "\0" in name else ""


def _parts(name: str) -> list[str]:
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
