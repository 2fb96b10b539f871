"""Findings in a series, collected frame by frame: areas, thumbnails, the row of the report."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2unet_core.media.image import overlay
from sam2unet_core.task import Task
from sam2unet_core.types import Frame

MAX_THUMBNAILS = 12


@dataclass(frozen=True)
class ClassFindings:
    """Findings of one class.

    Attributes:
        name, label, rgb: of the class.
        frames: number of frames that show it.
        largest_px: its largest area in a frame, in pixels.
        mean_confidence: mean over those frames of the mean probability within the mask.
    """

    name: str
    label: str
    rgb: tuple[int, int, int]
    frames: int
    largest_px: int
    mean_confidence: float | None


@dataclass(frozen=True)
class Findings:
    """Findings in a series.

    Attributes:
        frames: number of frames segmented.
        frames_with_findings: number of frames with any class.
        largest_px: largest area of all classes together in a frame, in pixels.
        mean_confidence: mean over the frames with findings of the mean probability in the mask.
        classes: the same by class.
        areas_px: area of all classes together, by frame.
        numbers: 1-based numbers of these frames in the series.
        seconds_per_frame: for video and cine, else None.
        thumbnails: frames with findings, spread over the series, in order; the first frame if
            there are no findings.
    """

    frames: int = 0
    frames_with_findings: int = 0
    largest_px: int = 0
    mean_confidence: float | None = None
    classes: tuple[ClassFindings, ...] = ()
    areas_px: tuple[int, ...] = ()
    numbers: tuple[int, ...] = ()
    seconds_per_frame: float | None = None
    thumbnails: tuple[Thumbnail, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Findings:
        """Read what `to_dict` returned.

        Raises:
            TypeError, KeyError: it has another form.
        """
        fields: dict[str, Any] = dict(content)
        classes = [{**item, "rgb": tuple(item["rgb"])} for item in fields.pop("classes", ())]
        thumbnails = fields.pop("thumbnails", ())
        areas, numbers = (tuple(fields.pop(key)) for key in ("areas_px", "numbers"))
        return cls(
            **fields,
            areas_px=areas,
            numbers=numbers,
            classes=tuple(ClassFindings(**item) for item in classes),
            thumbnails=tuple(Thumbnail(**item) for item in thumbnails),
        )


@dataclass
class _Tally:
    frames: int = 0
    largest: int = 0
    confidence: float = 0.0

    def add(self, mask: NDArray[np.bool_], probability: NDArray[np.float32]) -> int:
        area = int(np.count_nonzero(mask))
        if area:
            self.frames += 1
            self.largest = max(self.largest, area)
            self.confidence += float(probability[mask].mean(dtype=np.float64))
        return area

    @property
    def mean(self) -> float | None:
        return round(self.confidence / self.frames, 4) if self.frames else None


@dataclass
class FindingsCollector:
    """Collects the findings of a series in bounded memory.

    Thumbnails are spread over the series: of every N frames in a row, the one with the largest area
    is kept. When there are too many, N doubles. `seconds_per_frame` is None except for video and
    cine.
    """

    task: Task
    seconds_per_frame: float | None = None
    _areas: list[int] = field(default_factory=list)
    _numbers: list[int] = field(default_factory=list)
    _pictures: dict[int, RawThumbnail] = field(default_factory=dict)
    _frames_per_picture: int = 1
    _first: RawThumbnail | None = None

    def __post_init__(self) -> None:
        """Start a tally for each class, and one for all classes together."""
        self._tallies = [_Tally() for _ in self.task.classes]
        self._any = _Tally() if len(self._tallies) > 1 else self._tallies[0]

    def add(
        self,
        frame: Frame,
        probabilities: NDArray[np.float32],
        *,
        masks: NDArray[np.bool_],
        labels: NDArray[np.uint8],
    ) -> int:
        """Add one frame and return the area of all classes together, in pixels.

        `probabilities` and `masks` are `(K, H, W)`, `labels` `(H, W)`.
        """
        for tally, mask, probability in zip(self._tallies, masks, probabilities, strict=True):
            area = tally.add(mask, probability)
        if len(masks) > 1:
            area = self._any.add(np.asarray(masks.any(axis=0)), probabilities.max(axis=0))
        order = len(self._areas)
        self._areas.append(area)
        self._numbers.append(frame.index + 1)
        if area:
            self._keep(frame, labels, area=area, order=order)
        elif order == 0:
            self._first = self._picture(frame, labels, area=area, order=order)
        return area

    def result(self) -> Findings:
        """Return the findings."""
        while len(self._pictures) > MAX_THUMBNAILS:
            self._thin()
        shown = list(self._pictures.values()) or ([self._first] if self._first else [])
        return Findings(
            frames=len(self._areas),
            frames_with_findings=self._any.frames,
            largest_px=self._any.largest,
            mean_confidence=self._any.mean,
            classes=tuple(
                ClassFindings(each.name, each.label, each.rgb, t.frames, t.largest, t.mean)
                for each, t in zip(self.task.classes, self._tallies, strict=True)
            ),
            areas_px=tuple(self._areas),
            numbers=tuple(self._numbers),
            seconds_per_frame=self.seconds_per_frame,
            thumbnails=tuple(each.encoded() for each in shown),
        )

    def _keep(self, frame: Frame, labels: NDArray[np.uint8], *, area: int, order: int) -> None:
        place = order // self._frames_per_picture
        previous = self._pictures.get(place)
        if previous is None or area > previous.area_px:
            self._pictures[place] = self._picture(frame, labels, area=area, order=order)
        if len(self._pictures) > 2 * MAX_THUMBNAILS:
            self._thin()

    def _thin(self) -> None:
        """Keep one picture of every two neighbours."""
        self._frames_per_picture *= 2
        kept: dict[int, RawThumbnail] = {}
        for each in self._pictures.values():
            place = each.order // self._frames_per_picture
            if place not in kept or each.area_px > kept[place].area_px:
                kept[place] = each
        self._pictures = kept

    def _picture(
        self, frame: Frame, labels: NDArray[np.uint8], *, area: int, order: int
    ) -> RawThumbnail:
        pixels = draw_thumbnail(frame.pixels, labels, task=self.task)
        return RawThumbnail(order, frame.index + 1, frame.time_s, area, pixels)


def combine(parts: Sequence[Findings]) -> Findings:
    """Return the findings of several series as if they were one, in the order given."""
    numbered: list[Thumbnail] = []
    areas: list[int] = []
    for part in parts:
        shift = len(areas)
        for each in part.thumbnails:
            numbered.append(Thumbnail(**{**asdict(each), "number": each.number + shift}))
        areas.extend(part.areas_px)
    found = [each for each in numbered if each.area_px]
    found = sorted(found, key=lambda each: -each.area_px)[:MAX_THUMBNAILS] or numbered[:1]
    return Findings(
        frames=len(areas),
        frames_with_findings=sum(part.frames_with_findings for part in parts),
        largest_px=max((part.largest_px for part in parts), default=0),
        mean_confidence=_weighted([(p.frames_with_findings, p.mean_confidence) for p in parts]),
        classes=tuple(
            ClassFindings(
                same[0].name,
                same[0].label,
                same[0].rgb,
                sum(each.frames for each in same),
                max(each.largest_px for each in same),
                _weighted([(each.frames, each.mean_confidence) for each in same]),
            )
            for same in zip(*(part.classes for part in parts), strict=True)
        ),
        areas_px=tuple(areas),
        numbers=tuple(range(1, len(areas) + 1)),
        thumbnails=tuple(sorted(found, key=lambda each: each.number)),
    )


def _weighted(values: Sequence[tuple[int, float | None]]) -> float | None:
    total = sum(count for count, value in values if value is not None)
    if total == 0:
        return None
    return round(sum(count * value for count, value in values if value is not None) / total, 4)


@dataclass(frozen=True)
class Entry:
    """A series as the report shows it.

    Attributes:
        name: the name of its results; for DICOM a pseudonym.
        group: entries of one group share a row, as the images of one folder do.
        kind: see `sam2unet_core.types.Kind`.
        modality: DICOM modality, or None.
        spacing_mm: (row, column) pixel pitch, or None.
        spacing_note: what that pitch means; may be empty.
        burned_in: whether the pixels may show names; None if not stated.
        warnings: for the reader; no patient data.
        video: path of the annotated video below the results folder, or None.
        findings: its findings.
    """

    name: str
    group: str
    kind: str
    findings: Findings
    modality: str | None = None
    spacing_mm: tuple[float, float] | None = None
    spacing_note: str = ""
    burned_in: bool | None = None
    warnings: tuple[str, ...] = field(default=())
    video: str | None = None

    @property
    def pixel_mm2(self) -> float | None:
        """Area of a pixel in square millimetres, or None."""
        return self.spacing_mm[0] * self.spacing_mm[1] if self.spacing_mm else None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dictionary."""
        return {**asdict(self), "findings": self.findings.to_dict()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Entry:
        """Read what `to_dict` returned.

        Raises:
            TypeError, KeyError: it has another form.
        """
        fields = dict(content)
        findings = Findings.from_dict(fields.pop("findings"))
        spacing = fields.pop("spacing_mm")
        warnings = tuple(fields.pop("warnings"))
        pitch = (float(spacing[0]), float(spacing[1])) if spacing else None
        return cls(**fields, findings=findings, spacing_mm=pitch, warnings=warnings)


def by_group(entries: Sequence[Entry]) -> list[Entry]:
    """Merge the entries of each group, sorted by name."""
    groups: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda each: each.name):
        groups.setdefault(entry.group, []).append(entry)
    return [_combined(name, group) for name, group in groups.items()]


def _combined(name: str, group: list[Entry]) -> Entry:
    if len(group) == 1:
        return group[0]
    warnings = dict.fromkeys(text for entry in group for text in entry.warnings)
    return replace(
        group[0],
        name=name,
        findings=combine([entry.findings for entry in group]),
        warnings=tuple(warnings),
    )


SIDE = 320
"""Longest side of a thumbnail, in pixels."""


@dataclass(frozen=True)
class Thumbnail:
    """A frame with contours.

    Attributes:
        number: 1-based number of the frame in its series.
        time_s: seconds from the first frame, or None.
        area_px: area of all classes together.
        width, height: of the thumbnail in pixels.
        jpeg: the image, in base64.
    """

    number: int
    time_s: float | None
    area_px: int
    width: int
    height: int
    jpeg: str


@dataclass(frozen=True)
class RawThumbnail:
    """A thumbnail before encoding; `pixels` is `(h, w, 3)` uint8 RGB."""

    order: int
    number: int
    time_s: float | None
    area_px: int
    pixels: NDArray[np.uint8]

    def encoded(self) -> Thumbnail:
        """Return it as JPEG in base64."""
        stream = io.BytesIO()
        Image.fromarray(self.pixels).save(stream, "JPEG", quality=82)
        text = base64.b64encode(stream.getvalue()).decode("ascii")
        height, width = self.pixels.shape[:2]
        return Thumbnail(self.number, self.time_s, self.area_px, width, height, text)


def draw_thumbnail(
    pixels: NDArray[np.uint8], labels: NDArray[np.uint8], *, task: Task
) -> NDArray[np.uint8]:
    """Draw contours of `(H, W)` labels over `(H, W, 3)` RGB pixels, scaled down to `SIDE`."""
    height, width = labels.shape
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    nearest = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    return overlay(_scaled_down(pixels, size), nearest, task.classes)


def _scaled_down(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale a picture down to size = (width, height).

    Averaging whole blocks and then interpolating looks as good as averaging alone and is two to
    seven times as fast.
    """
    height, width = pixels.shape[:2]
    side = min(max(height, width) // SIDE, height, width)
    small: NDArray[Any] = pixels
    if side > 1:
        rows, columns = height // side, width // side
        blocks = small[: rows * side, : columns * side]
        small = cv2.resize(blocks, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_LINEAR), np.uint8)
