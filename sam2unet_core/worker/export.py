"""`write_seg`: saves masks of a study's frames as DICOM SEG."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from sam2unet_core import __version__
from sam2unet_core.dicom.modules import SegmentOrigin
from sam2unet_core.dicom.seg import SegWriter
from sam2unet_core.dicom.uids import Provenance
from sam2unet_core.errors import DataError
from sam2unet_core.files import file_sha256
from sam2unet_core.inference.model import Model
from sam2unet_core.media.planes import source_series, stored_frame, to_source
from sam2unet_core.protocol import ProtocolError, check_reference, inside, read_array
from sam2unet_core.task import SCHEMA, Task
from sam2unet_core.types import Series, rejection_reason
from sam2unet_core.worker.exchange import Exchange, read_items
from sam2unet_core.worker.fields import MAX_FRAMES, PLANES, Fields
from sam2unet_core.worker.running import RunningRequest
from sam2unet_core.worker.studies import Studies, in_plane
from sam2unet_core.worker.warned import WarningLog

MAX_SEGMENTS = 1000
ALGORITHM_TYPES = ("AUTOMATIC", "SEMIAUTOMATIC", "MANUAL")


@dataclass(frozen=True)
class Drawn:
    """Segments that a person drew, edited or named, beside or instead of a task's classes.

    Attributes:
        task: the segments as classes.
        origins: who made each.
    """

    task: Task
    origins: tuple[SegmentOrigin, ...]

    @classmethod
    def take(cls, fields: Fields) -> Drawn | None:
        """Parse the field `segments`, and the `title` of the result that goes with it.

        Raises:
            ProtocolError: a field of a segment is invalid.
            TaskError: a code or a colour is.
        """
        given, title = fields.anything("segments"), fields.text("title") or "Segmentation"
        if given is None:
            return None
        if not isinstance(given, list) or not 0 < len(given) <= MAX_SEGMENTS:
            raise ProtocolError("bad_request", f"segments: expected 1 to {MAX_SEGMENTS} objects")
        classes, origins = [], []
        for value, each in enumerate(given, start=1):
            item = Fields(each, f"segments {value}")
            kind = item.choice("algorithm_type", ALGORITHM_TYPES, None) or "MANUAL"
            origins.append(SegmentOrigin(kind, item.text("algorithm_name") or ""))
            classes.append(
                {
                    "value": value,
                    "name": f"segment_{value}",
                    "label": item.needed_text("label"),
                    **{name: item.anything(name) for name in ("category", "type", "region", "rgb")},
                }
            )
            item.end()
        content = {
            "schema": SCHEMA,
            "name": "segmentation",
            "version": "1",
            "title": title,
            "image_size": [32, 32],  # of no meaning: there is no network
            "classes": classes,
        }
        return cls(Task.from_dict(content, source="segments"), tuple(origins))


@dataclass(frozen=True)
class Exporter:
    """The request `write_seg`.

    Attributes:
        exchange: the folder of the masks and of the SEG.
        source: file or folder of the study.
        series: index of the series at that path.
        masks: reference to `(N, K, H, W)` of 0 and 1, uint8.
        frames: which frames of the series were looked at; None for all.
        mask_frames: to which of those, counted from 0, each mask belongs, the others being empty;
            None for a mask of each.
        plane: the plane to which the frames were reformatted; None for the stored frames.
        output: name of the file in the exchange folder.
        algorithm: a comment, such as who edited the masks; may be empty.
        weights_sha256: hash of the weights that made the masks, if no network is loaded for them.
        drawn: what the segments are and who made them, if they are not a task's classes.
        threshold: the threshold the masks were made with; None if unknown.
    """

    exchange: Exchange
    source: str
    series: int
    masks: dict[str, Any]
    frames: list[int] | None
    mask_frames: list[int] | None
    plane: str | None
    output: str
    algorithm: str
    threshold: float | None
    weights_sha256: str | None
    drawn: Drawn | None

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
            mask_frames=fields.frames("mask_frames"),
            plane=fields.choice("plane", PLANES, None),
            output=fields.needed_text("output"),
            algorithm=fields.text("algorithm") or "",
            threshold=fields.number("threshold", None, low=0, high=1),
            weights_sha256=fields.text("weights_sha256"),
            drawn=Drawn.take(fields),
        )
        fields.end()
        inside(exchange.folder, made.output)
        if made.masks["dtype"] != "|u1" or len(made.masks["shape"]) != 4:
            raise ProtocolError("bad_request", "masks: expected (N, K, H, W) of |u1")
        return made

    def write(
        self, job: RunningRequest, *, model: Model | None, task: Task, studies: Studies
    ) -> dict[str, Any]:
        """Write the file and return its name and hash.

        Args:
            job: the request.
            model: the network that made the masks, for the record; None if it is not known.
            task: the classes.
            studies: finds the source.

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
        origins = self.drawn.origins if self.drawn is not None else None
        with SegWriter(path, stored, task=task, provenance=provenance, origins=origins) as writer:
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
        if chosen and chosen[-1] >= cut.frame_count:
            raise ProtocolError(
                "bad_request", f"frames: the series has only {cut.frame_count} frames"
            )
        masked = range(len(chosen)) if self.mask_frames is None else self.mask_frames
        if len(masked) != count or (count and masked[-1] >= len(chosen)):
            raise ProtocolError(
                "bad_request",
                f"frames: {len(masked)} of {len(chosen)} frames have masks, but there are {count}",
            )
        if source_series(cut) is not cut and count != cut.frame_count:
            raise ProtocolError("bad_request", "plane: masks of all its frames are needed")
        return chosen

    def _masks(self, cut: Series, chosen: list[int]) -> Any:
        """Yield the index of a stored frame and its masks `(K, H, W)`."""
        if source_series(cut) is cut:
            masked = set(range(len(chosen)) if self.mask_frames is None else self.mask_frames)
            empty = np.zeros(self.masks["shape"][1:], np.uint8)
            found = read_items(self.exchange.folder, self.masks)
            for number, index in enumerate(chosen):
                yield index, next(found) if number in masked else empty
            return
        volume = np.moveaxis(read_array(self.exchange.folder, self.masks), 1, -1)  # (N, H, W, K)
        yield from enumerate(np.moveaxis(to_source(cut, volume), -1, 1))

    def _provenance(
        self, series: Series, model: Model | None, task: Task, *, forced: bool
    ) -> Provenance:
        """Return the provenance of the SEG, whose key determines its UIDs."""
        known = model.weights_sha256 if model is not None else self.weights_sha256
        described = {
            "content": [instance.sha256 for instance in series.instances],
            "masks": file_sha256(inside(self.exchange.folder, self.masks["file"])),
            "shape": self.masks["shape"],
            "frames": self.frames,
            "mask_frames": self.mask_frames,
            "plane": self.plane,
            "task": task.to_dict(),
            "weights": known or "unknown",
            "version": __version__,
            "now": datetime.now(UTC).isoformat(),  # two exports are two series
        }
        key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
        notes = (str(task.metrics.get("note") or ""), self.algorithm)
        return Provenance(
            key=key,
            started=datetime.now(UTC),
            version=__version__,
            weights_sha256=known or "unknown",
            runtime=model.runtime.name if model is not None else "unknown",
            precision=model.runtime.precision if model is not None else "unknown",
            threshold=self.threshold,
            model_note="; ".join(note for note in notes if note),
            forced_task=forced,
        )
