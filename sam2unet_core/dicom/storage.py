"""SOP classes and transfer syntaxes: which DICOM objects are images (PS3.4, PS3.6)."""

from __future__ import annotations

VIDEO_SYNTAXES: dict[str, str] = {
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in ("100", "100.1", "101", "101.1")), "mpeg"),
    **dict.fromkeys(
        (f"1.2.840.10008.1.2.4.{n}{part}" for n in range(102, 107) for part in ("", ".1")), "h264"
    ),
    **dict.fromkeys(("1.2.840.10008.1.2.4.107", "1.2.840.10008.1.2.4.108"), "hevc"),
}
"""Video transfer syntaxes, and the codec of their elementary stream."""

_NATIVE = {
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
}
"""Implicit and explicit little endian, deflated, big endian."""

DIRECTORY = "1.2.840.10008.1.3.10"
"""Media Storage Directory: a DICOMDIR."""

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NON_IMAGES = {
    _STORAGE + "66": "raw data",
    _STORAGE + "77.1.6": "a whole-slide image",
    _STORAGE + "30": "a parametric map",
    _STORAGE + "481": "a radiotherapy object",
    _STORAGE + "88": "a structured report",
    _STORAGE + "104": "an encapsulated document",
    _STORAGE + "11": "a presentation state",
    _STORAGE + "9": "a waveform",
    _STORAGE + "91": "microscopy annotations",
    _STORAGE + "68": "a surface",
    _STORAGE + "67": "a mapping between units",
    _STORAGE + "66.4": "a segmentation",
    _STORAGE + "66.5": "a segmentation",
    _STORAGE + "66.7": "a segmentation",
    "1.2.840.10008.5.1.4.39": "a colour palette",
    "1.2.840.10008.5.1.4.38": "a hanging protocol",
    DIRECTORY: "a DICOMDIR, an index: the files it names are read by themselves",
}
"""SOP classes, or prefixes of them, that are not images to segment."""

_ALWAYS_MULTIFRAME = {
    _STORAGE + suffix
    for suffix in (
        *("2.1", "2.2", "4.1", "4.3", "4.4", "3.1", "6.2", "6.3", "128.1", "130", "12.1.1"),
        *("12.2.1", "13.1.1", "13.1.3", "77.1.5.4", "7.1", "7.2", "7.3", "7.4"),
        *("77.1.1.1", "77.1.2.1", "77.1.4.1"),
    )
}
"""Enhanced, cine, multi-frame secondary capture and video classes."""


def non_image_kind(sop_class_uid: str) -> str | None:
    """Return the kind of object of a SOP class that is not an image, else None."""
    parts = sop_class_uid.split(".")
    for count in range(len(parts), 5, -1):
        found = _NON_IMAGES.get(".".join(parts[:count]))
        if found:
            return found
    return None


def is_multiframe(sop_class_uid: str, frames: int) -> bool:
    """Whether an instance is multi-frame, by its class or number of frames."""
    return frames > 1 or sop_class_uid in _ALWAYS_MULTIFRAME


def is_encapsulated(transfer_syntax_uid: str) -> bool:
    """Whether pixel data of this transfer syntax are encapsulated."""
    return transfer_syntax_uid not in _NATIVE


def name_of(uid: str) -> str:
    """Return the name of a UID in the standard, else the UID."""
    from pydicom.uid import UID  # noqa: PLC0415 - the tables above are used without pydicom

    return str(UID(uid).name)
