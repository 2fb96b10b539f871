"""Provenance of a result, and UIDs derived from it: equal runs give equal bytes."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.uid import UID

SOFTWARE = "SAM2-UNet"
MANUFACTURER = "SAM2-UNet bundle contributors"
RESEARCH_ONLY = "Research only, not for diagnosis"


@dataclass(frozen=True)
class Provenance:
    """Origin of a result: source, model and settings.

    Attributes:
        key: hex hash of content, weights, task, settings, runtime and version; all UIDs of the
            result are derived from it.
        started: start of the run, used for all dates in the result.
        version: of this software.
        weights_sha256: hash of the weights file, in hex.
        runtime: such as `exact`.
        precision: such as `float32`.
        threshold: probability at or above which a pixel belongs to a class.
        model_note: included in each output, such as `starter model`; may be empty.
        forced_task: whether the task was forced on a source that it does not accept.
    """

    key: str
    started: datetime
    version: str
    weights_sha256: str
    runtime: str
    precision: str
    threshold: float | None = None
    model_note: str = ""
    forced_task: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """Caveats for the reader, most important first."""
        forced = ("task forced on a source it does not accept",) if self.forced_task else ()
        model = (self.model_note,) if self.model_note else ()
        return (RESEARCH_ONLY, *forced, *model)

    def caption(self, title: str) -> str:
        """Return the caption for pictures of the result: software, task and caveats."""
        return f"{SOFTWARE} {title}: {'; '.join(self.notes).lower()}"

    @property
    def parameters(self) -> dict[str, str]:
        """Value of the Algorithm Parameters attribute."""
        parameters = {
            "weights_sha256": self.weights_sha256,
            "runtime": self.runtime,
            "precision": self.precision,
        }
        if self.threshold is not None:
            parameters["threshold"] = f"{self.threshold:g}"
        if self.forced_task:
            parameters["forced_task"] = "yes"
        return parameters


def derived_uid(key: str, *roles: str | int) -> UID:
    """Return the UID for these roles, such as `"seg", "series"`, in the result with this key.

    It is a UUID-derived UID (DICOM PS3.5 B.2) from a version 8 UUID (RFC 9562), by SHA-256 of key
    and roles.
    """
    digest = hashlib.sha256("\0".join((key, *map(str, roles))).encode()).digest()
    bits = int.from_bytes(digest[:16], "big")
    bits = bits & ~(0xF << 76) | 0x8 << 76  # version 8
    bits = bits & ~(0x3 << 62) | 0x2 << 62  # the RFC's variant
    from pydicom.uid import UID  # noqa: PLC0415 - plain pictures need no UIDs

    return UID(f"2.25.{uuid.UUID(int=bits).int}")
