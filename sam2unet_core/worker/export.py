"""`write_seg`: saves masks of a study's frames as DICOM SEG."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from sam2unet_core import __version__
from sam2unet_core.dicom.seg import SegWriter
from sam2unet_core.dicom.uids import Provenance
from sam2unet_core.errors import DataError
from sam2unet_core.files import file_sha256
from sam2unet_core.inference.model import Model
from sam2unet_core.media.planes import source_series, stored_frame, to_source
from sam2unet_core.protocol import ProtocolError, check_reference, inside, read_array
from sam2unet_core.task import Task
from sam2unet_core.types import Series, rejection_reason
from sam2unet_core.worker.exchange import Exchange, read_items
from sam2unet_core.worker.fields import MAX_FRAMES, PLANES, Fields
from sam2unet_core.worker.running import RunningRequest
from sam2unet_core.worker.studies import Studies, in_plane
from sam2unet_core.worker.warned import WarningLog


@dataclass(frozen=True)
class Exporter:
    """The request `write_seg`.

    Attributes:
        exchange: the folder of the masks and of the SEG.
        source: file or folder of the study.
        series: index of the series at that path.
        masks: reference to `(N, K, H, W)` of 0 and 1, uint8.
        frames: the frame of the series to which each mask belongs; None for all in order.
        plane: the plane to which the frames were reformatted; None for the stored frames.
        output: name of the file in the exchange folder.
        algorithm: a comment, such as who edited the masks; may be empty.
        threshold: the threshold the masks were made with; None if unknown.
    """

    exchange: Exchange
    source: str
    series: int
    masks: dict[str, Any]
    frames: list[int] | None
    plane: str | None
    output: str
    algorithm: str
    threshold: float | None

    @classmethod
    def take(cls, fields: Fields, exchange: Exchange) -> Exporter:
        """Parse the fields of `write_seg`.

        Raises:
            ProtocolError: a field is invalid.
        """
        made = cls(
            exchange,
            source=fields.needed_text("source"),
            series=fields.integer("series", 0, low=0, high=MAX_FRAMES) or 0,
            masks=check_reference(fields.anything("masks")),
            frames=fields.frames(),
            plane=fields.choice("plane", PLANES, None),
            output=fields.needed_text("output"),
            algorithm=fields.text("algorithm") or "",
            threshold=fields.number("threshold", None, low=0, high=1),
        )
        fields.end()
        inside(exchange.folder, made.output)
        if made.masks["dtype"] != "|u1" or len(made.masks["shape"]) != 4:
            raise ProtocolError("bad_request", "masks: expected (N, K, H, W) of |u1")
        return made

    def write(
        self, job: RunningRequest, *, model: Model, task: Task, studies: Studies
    ) -> dict[str, Any]:
        """Write the file and return its name and hash.

        Raises:
            ProtocolError: the masks do not fit the series or the task.
            DataError: the source is not DICOM, or the masks are too many for DICOM.
        """
        series = studies.series(self.source, self.series, check=job.check)
        if not series.is_dicom:
            raise DataError("the source is not DICOM, so no DICOM SEG can refer to it")
        cut = in_plane(series, self.plane)
        chosen = self._chosen(cut, task)
        forced = rejection_reason(task, series.properties) is not None
        provenance = self._provenance(series, model, task, forced=forced)
        path = self.exchange.adopt(self.output)
        path.unlink(missing_ok=True)
        stored = source_series(cut)
        with SegWriter(path, stored, task=task, provenance=provenance) as writer:
            for done, (index, masks) in enumerate(self._masks(cut, chosen), start=1):
                writer.add(stored_frame(stored, index), masks.astype(bool))
                job.progress(done, len(chosen))
        return {
            "file": self.output,
            "sha256": file_sha256(path),
            "frames": len(chosen),
            "warnings": WarningLog(stored, whole=True).to_list(),
        }

    def _chosen(self, cut: Series, task: Task) -> list[int]:
        count, classes, rows, columns = self.masks["shape"]
        if (rows, columns) != (cut.rows, cut.columns) or classes != task.num_classes:
            raise ProtocolError(
                "bad_request",
                f"masks: {classes} classes of {rows} x {columns} pixels; expected "
                f"{task.num_classes} of {cut.rows} x {cut.columns}",
            )
        chosen = list(range(cut.frame_count)) if self.frames is None else self.frames
        if len(chosen) != count or (chosen and chosen[-1] >= cut.frame_count):
            raise ProtocolError(
                "bad_request",
                f"frames: {len(chosen)} frames for {count} masks, in a series of "
                f"{cut.frame_count} frames",
            )
        if source_series(cut) is not cut and count != cut.frame_count:
            raise ProtocolError("bad_request", "plane: masks of all its frames are needed")
        return chosen

    def _masks(self, cut: Series, chosen: list[int]) -> Any:
        """Yield the index of a stored frame and its masks `(K, H, W)`."""
        if source_series(cut) is cut:
            yield from zip(chosen, read_items(self.exchange.folder, self.masks), strict=True)
            return
        volume = np.moveaxis(read_array(self.exchange.folder, self.masks), 1, -1)  # (N, H, W, K)
        yield from enumerate(np.moveaxis(to_source(cut, volume), -1, 1))

    def _provenance(self, series: Series, model: Model, task: Task, *, forced: bool) -> Provenance:
        """Return the provenance of the SEG, whose key determines its UIDs."""
        described = {
            "content": [instance.sha256 for instance in series.instances],
            "masks": file_sha256(inside(self.exchange.folder, self.masks["file"])),
            "shape": self.masks["shape"],
            "frames": self.frames,
            "plane": self.plane,
            "task": task.to_dict(),
            "weights": model.weights_sha256 or "unknown",
            "version": __version__,
            "now": datetime.now(UTC).isoformat(),  # two exports are two series
        }
        key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
        notes = (str(task.metrics.get("note") or ""), self.algorithm)
        return Provenance(
            key=key,
            started=datetime.now(UTC),
            version=__version__,
            weights_sha256=model.weights_sha256 or "unknown",
            runtime=model.runtime.name,
            precision=model.runtime.precision,
            threshold=self.threshold,
            model_note="; ".join(note for note in notes if note),
            forced_task=forced,
        )
