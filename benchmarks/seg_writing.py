"""Time, memory and file size of a SEG of many frames: `python benchmarks/seg_writing.py`.

The default is 10,000 frames of 1920 x 1080, which must stay below 2 GB. Every frame shows a
finding, which is the worst case.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from sam2unet_core.dicom.seg import SegWriter
from sam2unet_core.dicom.uids import Provenance
from sam2unet_core.task import Task, installed_bundle
from sam2unet_core.types import Frame, Indices, Instance, OnError, Series, Window


class Blank:
    """A source of one header and of frames that share one black image."""

    def __init__(self, header: Dataset, pixels: np.ndarray) -> None:
        self._header = header
        self._pixels = pixels

    def frames(
        self, series: Series, *, indices: Indices, window: Window | None, on_error: OnError | None
    ) -> Iterator[Frame]:
        """Yield the frames."""
        for index in range(series.frame_count) if indices is None else indices:
            yield Frame(self._pixels, index, 0, index + 1, index / 25)

    def dataset(self, series: Series, instance_index: int) -> Dataset:
        """Return the header."""
        return self._header


def main() -> None:
    """Write the file; print its size, the time and the peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1080)
    parser.add_argument("--columns", type=int, default=1920)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    series = _video(given.frames, given.rows, given.columns)
    provenance = Provenance("00" * 32, datetime.now(UTC), "0", "00" * 32, "exact", "float32")
    task = Task.load(installed_bundle() / "configs" / "task.json")
    masks = np.zeros((task.num_classes, given.rows, given.columns), bool)
    before = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "seg.dcm"
        with SegWriter(path, series, task=task, provenance=provenance) as writer:
            for frame in series.frames():
                top = frame.index % (given.rows - 100)
                masks[:] = False
                masks[:, top : top + 100, 200:300] = True
                writer.add(frame, masks)
            taken = time.perf_counter() - before
        seconds = time.perf_counter() - before
        size = path.stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{given.frames} frames of {given.columns} x {given.rows}: {size / 1e9:.2f} GB file")
    print(
        f"frames added in {taken:.1f} s, file complete after {seconds:.1f} s, "
        f"peak {peak / 1e6:.0f} MB"
    )


def _video(frames: int, rows: int, columns: int) -> Series:
    header = Dataset()
    header.PatientName = "Benchmark"
    header.StudyInstanceUID = generate_uid()
    sop_class = "1.2.840.10008.5.1.4.1.1.77.1.1.1"
    return Series(
        kind="video",
        instances=(Instance(Path("video.dcm"), sop_class, generate_uid(), frames),),
        source=Blank(header, np.zeros((rows, columns, 3), np.uint8)),
        source_path=Path("video.dcm"),
        relative="video.dcm",
        rows=rows,
        columns=columns,
        frame_count=frames,
        series_uid=generate_uid(),
        frames_per_second=25.0,
    )


if __name__ == "__main__":
    main()
