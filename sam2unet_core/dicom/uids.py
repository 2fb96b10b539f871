"""Who made a result, and the identifiers that follow from it: the same run gives the same bytes."""

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
    """What a result was made from and with.

    Attributes:
        key: hex hash over content, weights, task, settings, runtime and version; every UID of the
            result derives from it.
        started: when the run started; every date in the result is this one.
        version: of this software.
        weights_sha256: hash of the weights file, in hex.
        runtime: such as `exact`.
        precision: such as `float32`.
        threshold: probability at or above which a pixel belongs to a class.
        model_note: said in each output, such as `starter model`; may be empty.
        forced_task: whether the task was run on what it does not accept.
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
        """What a reader has to know, most important first."""
        forced = ("task forced on a source it does not accept",) if self.forced_task else ()
        model = (self.model_note,) if self.model_note else ()
        return (RESEARCH_ONLY, *forced, *model)

    def caption(self, title: str) -> str:
        """Return the line for pictures of the result: what made it, and what a reader must know."""
        return f"{SOFTWARE} {title}: {'; '.join(self.notes).lower()}"

    @property
    def parameters(self) -> dict[str, str]:
        """What the algorithm ran with, for the Algorithm Parameters attribute."""
        given = {
            "weights_sha256": self.weights_sha256,
            "runtime": self.runtime,
            "precision": self.precision,
        }
        if self.threshold is not None:
            given["threshold"] = f"{self.threshold:g}"
        if self.forced_task:
            given["forced_task"] = "yes"
        return given


def derived_uid(key: str, *roles: str | int) -> UID:
    """Return the UID of one thing in the result with this key.

    It has the UUID form of DICOM PS3.5 B.2 (`2.25.` and a UUID as one integer), the UUID being
    of version 8 (RFC 9562) from SHA-256 over the key and the roles.

    Args:
        key: of the result.
        roles: what the UID is for, such as `"seg", "series"`.
    """
    digest = hashlib.sha256("\0".join((key, *map(str, roles))).encode()).digest()
    bits = int.from_bytes(digest[:16], "big")
    bits = bits & ~(0xF << 76) | 0x8 << 76  # version 8
    bits = bits & ~(0x3 << 62) | 0x2 << 62  # the RFC's variant
    from pydicom.uid import UID  # noqa: PLC0415 - pictures have a provenance and no UIDs

    return UID(f"2.25.{uuid.UUID(int=bits).int}")
