"""Recognise the medium of a file by its content, else by its suffix."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sam2unet_core.media.image import IMAGE_SUFFIXES
from sam2unet_core.media.video import VIDEO_SUFFIXES
from sam2unet_core.media.volume import PAIR_SUFFIXES, VOLUME_SUFFIXES, is_pair, voxel_file

Medium = Literal["image", "video", "volume"]
_START = 4096
_PACKETS = (188, 192, 204)
"""Packet sizes of MPEG-TS: plain, with timestamps (M2TS), with error correction."""
_IMAGES = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
)
_VIDEOS = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF: WMV
    b"FLV\x01",
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02",  # MXF
    b"\0\0\x01\xba",  # MPEG program stream: MPG, VOB
    b"\0\0\x01\xb3",  # MPEG video
)
_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"wide")
_IMAGE_BRANDS = (b"avif", b"avis")
_OTHER_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"crx ", b"M4A ", b"M4B ")
_ALSO_TEXT = frozenset({".ts", ".mts", ".vob", ".mod", ".dv", ".qt"})
"""Video suffixes that text files use as well, such as TypeScript."""
_APPLE_DOUBLE = (b"\0\5\x16\7", b"\0\5\x16\0")


def medium_of(path: Path) -> Medium | None:
    """Return the medium of a file that is not DICOM, or None.

    Pictures and videos are recognised by content if they have the suffix of the other or none,
    videos also with unknown suffixes. A file with a known suffix but unknown content is reported as
    that medium, so that reading it reports the damage; text in a `.ts` file is not.

    Raises:
        OSError: it cannot be read.
    """
    name, suffix = path.name.lower(), path.suffix.lower()
    if is_companion(path) or voxel_file(path) is not None:
        return None
    if name.endswith((*VOLUME_SUFFIXES, *PAIR_SUFFIXES)):
        return "volume" if name.endswith(VOLUME_SUFFIXES) or is_pair(path) else None
    start = _start(path)
    found = _by_content(start)
    if suffix and suffix not in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        return found if found == "video" else None
    if found is not None:
        return found
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "video" if suffix and not (suffix in _ALSO_TEXT and _is_text(start)) else None


def unknown_medium(path: Path) -> str:
    """Return why `medium_of` returns None for a file, in words."""
    if is_companion(path):
        return "a macOS companion file, not a picture"
    voxels = voxel_file(path)
    if voxels is not None:
        return f"the header of {voxels.name}, which is read with it"
    if path.name.lower().endswith(PAIR_SUFFIXES):
        return "no NIfTI or Analyze header (.hdr) beside it"
    return "not an image, a video, a volume or DICOM"


def is_companion(path: Path) -> bool:
    """Whether macOS created the file beside another one: `._a.png`, or in `__MACOSX`.

    Raises:
        OSError: it cannot be read.
    """
    start = _start(path)
    if start.startswith(_APPLE_DOUBLE):
        return True
    macos_name = path.name.startswith("._") or "__MACOSX" in path.parts
    return macos_name and start[128:132] != b"DICM" and not _by_content(start)


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_START)


def _by_content(start: bytes) -> Medium | None:
    box, brand = start[4:8], start[8:12]
    if start.startswith(_IMAGES) or (box == b"ftyp" and brand in _IMAGE_BRANDS):
        return "image"
    if start[:4] == b"RIFF":
        return {b"WEBP": "image", b"AVI ": "video"}.get(brand)  # type: ignore[return-value]
    if box in _MOV_BOXES:
        return None if box == b"ftyp" and brand in _OTHER_BRANDS else "video"
    return "video" if start.startswith(_VIDEOS) or _is_transport_stream(start) else None


def _is_transport_stream(start: bytes) -> bool:
    """Whether the sync byte 0x47 repeats five times at the distance of a packet."""
    return any(
        all(start[first + n * size : first + n * size + 1] == b"\x47" for n in range(5))
        for size in _PACKETS
        for first in range(size)
    )


def _is_text(start: bytes) -> bool:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16
        return True
    controls = sum(byte < 9 or 13 < byte < 32 for byte in start)
    return bool(start) and controls * 20 < len(start) and b"\0" not in start
