"""A unit of work: one series, the names of its results, and the key of its content."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from sam2unet_core.batch.folder import Line, Status, digest
from sam2unet_core.batch.naming import Naming, Row, relative_path, source_of
from sam2unet_core.errors import InputError
from sam2unet_core.files import file_sha256
from sam2unet_core.media.planes import source_series
from sam2unet_core.names import in_utf8
from sam2unet_core.types import Instance, Kind, Series


@dataclass
class Unit:
    """One series that is segmented as a whole.

    Attributes:
        series: the frames.
        ids: the manifest's id of each instance.
        base: base name for results of the whole series.
        bases: base names for results of each instance.
        study, series_name: pseudonyms; None for media other than DICOM.
        relatives: paths of the instances below their input, for `private/sources.csv`.
        problems: why an instance or a part of it could not be read, by its index.
    """

    series: Series
    ids: tuple[str, ...]
    base: str
    bases: tuple[str, ...]
    study: str | None
    series_name: str | None
    relatives: tuple[str, ...]
    problems: dict[int, InputError] = field(default_factory=dict)

    @classmethod
    def of(cls, series: Series, naming: Naming) -> Unit:
        """Create the unit of a series and name its results."""
        count = range(len(series.instances))
        relatives = tuple(relative_path(series, index) for index in count)

        @cache
        def content() -> frozenset[str | None]:
            return frozenset(_hash(instance) for instance in series.instances)

        ids = tuple(
            naming.instance_id(relative, _source(series, index), content=content)
            for index, relative in enumerate(relatives)
        )
        bases = tuple(naming.base(series, index, instance_id=ids[index]) for index in count)
        return cls(
            series,
            ids,
            bases[0],
            bases,
            naming.study(series),
            naming.series(series),
            relatives,
        )

    @property
    def dicom(self) -> bool:
        """Whether it came from DICOM files."""
        return self.series.is_dicom

    @property
    def moving(self) -> bool:
        """Whether its frames are a sequence in time, as in a video."""
        return self.series.frame_count > 1 and self.series.frames_per_second is not None

    @property
    def cut(self) -> bool:
        """Whether its frames were reformatted from a volume stored in a different plane."""
        return source_series(self.series) is not self.series

    def key(self, settings_digest: str) -> str:
        """Return the hash of content and settings.

        Raises:
            OSError: a file cannot be read.
        """
        instances = self.series.instances
        content = [instance.sha256 for instance in instances]
        content += [file_sha256(path) for each in instances for path in each.companions]
        return digest({"content": content, "frames": self._kind(), "settings": settings_digest})

    def frame_base(self, instance: int, number: int) -> str:
        """Return the base name for results of one frame, below OUT."""
        base = self.bases[instance]
        if self.series.kind in (Kind.IMAGES, Kind.STACK, Kind.VOLUME) and not self.cut:
            return base
        return f"{base}.frames/{number:06d}"

    def problem(self, index: int, error: InputError) -> None:
        """Record why an instance or a part of it could not be read."""
        self.problems.setdefault(index, error)

    def line(self, index: int, *, key: str, status: Status) -> Line:
        """Return the manifest line of an instance, with what is known before segmentation."""
        return Line(
            id=self.ids[index],
            source_sha256=self.series.instances[index].sha256,
            kind=self.series.kind,
            study=self.study,
            series=self.series_name,
            status=status,
            key=key,
        )

    def _kind(self) -> list[object]:
        """Distinguish series of the same files, such as two planes of a volume."""
        series = self.series
        return [series.kind, series.frame_count, series.rows, series.columns]


def unit_rows(unit: Unit) -> Iterator[Row]:
    """Yield a row for each instance of a unit."""
    for index, instance in enumerate(unit.series.instances):
        yield {
            "id": unit.ids[index],
            "study": unit.study or "",
            "series": unit.series_name or "",
            "source": _source(unit.series, index),
            "relative": in_utf8(unit.relatives[index]),
            "study_instance_uid": unit.series.study_uid or "",
            "series_instance_uid": unit.series.series_uid or "",
            "sop_instance_uid": instance.sop_instance_uid or "",
        }


def _source(series: Series, index: int) -> str:
    """Return the absolute path of an instance for `private/sources.csv`."""
    relative = relative_path(series, index)
    return source_of(series.instances[index].path, archive=series.archive, relative=relative)


def _hash(instance: Instance) -> str | None:
    try:
        return instance.sha256
    except OSError:  # reported when the frames are read
        return None
