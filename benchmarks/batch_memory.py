"""Peak memory and speed of a batch run over 1920 x 1080 videos of different lengths.

python benchmarks/batch_memory.py [FRAMES ...]        by default 100 and 400 frames
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from sam2unet_core.batch import Settings, run
from sam2unet_core.inference.model import Model
from sam2unet_core.task import Window, load_preset
from sam2unet_core.types import Frame, Indices, Instance, Kind, OnError, Series

SHAPE = (1080, 1920)


class Bright(torch.nn.Module):
    """Replaces the network, so that only the rest is measured."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Return logits that are positive where red is bright."""
        return 10 * frames[:, :1]


class Moving:
    """A bright square that moves across the frame."""

    def frames(
        self, series: Series, *, indices: Indices, window: Window | None, on_error: OnError | None
    ) -> Iterator[Frame]:
        """Yield the frames, drawn one by one."""
        del window, on_error
        for index in range(series.frame_count) if indices is None else indices:
            pixels = np.full((*SHAPE, 3), 20, np.uint8)
            pixels[200:500, index % 1500 : index % 1500 + 300] = 250
            yield Frame(pixels, index, 0, index + 1, index / 25)

    def dataset(self, series: Series, instance_index: int) -> None:
        """Return None: a video file has no DICOM header."""


def measure(frames: int) -> None:
    """Segment a video of this many frames; print peak memory and speed."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "video.raw"
        path.write_bytes(b"video")
        instances = (Instance(path, frames=frames),)
        series = Series(
            Kind.VIDEO, instances, Moving(), path.parent, path.name, *SHAPE, frames,
            frames_per_second=25.0,
        )  # fmt: skip
        outcome = run(
            [series],
            Path(scratch) / "out",
            Settings(formats=("png",)),
            model=Model.of_network(load_preset("polyp"), Bright(), device="cpu"),
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = outcome.frames / outcome.seconds
    print(f"{frames} frames: peak {peak:.0f} MiB, {rate:.1f} frames/s")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        measure(int(sys.argv[1]))
    else:
        for count in sys.argv[1:] or ["100", "400"]:
            subprocess.run([sys.executable, __file__, count], check=True)
