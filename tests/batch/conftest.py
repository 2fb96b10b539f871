"""A small segmenter that finds bright pixels, images to give it, and series made by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sam2unet_core.batch import Outcome, Settings, run
from sam2unet_core.errors import DataError, InputError, Reason
from sam2unet_core.inference.model import Model, ModelSource
from sam2unet_core.media.image import read_image
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.task import Window, load_preset
from sam2unet_core.types import Frame, Indices, Instance, Kind, OnError, Series, Skipped

WEIGHTS = "ab" * 32


class Bright(torch.nn.Module):
    """Logits that are positive where the red channel is above about half of full scale."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return 10 * frames[:, :1]


class ImageFiles:
    """Frames from image files, one an instance."""

    def frames(
        self, series: Series, *, indices: Indices, window: Window | None, on_error: OnError | None
    ) -> Iterator[Frame]:
        for index in range(len(series.instances)) if indices is None else indices:
            try:
                pixels = read_image(series.instances[index].path)
            except DataError as error:
                problem = InputError(str(error), reason=Reason.CORRUPT)
                if on_error is None:
                    raise problem from error
                on_error(index, problem)
                continue
            yield Frame(pixels, index, index, 1)

    def dataset(self, series: Series, instance_index: int) -> None:
        return None


@dataclass
class Moving:
    """A video of given frames."""

    pictures: Sequence[np.ndarray]
    rate: float = 10.0

    def frames(
        self, series: Series, *, indices: Indices, window: Window | None, on_error: OnError | None
    ) -> Iterator[Frame]:
        for index in range(len(self.pictures)) if indices is None else indices:
            yield Frame(self.pictures[index], index, 0, index + 1, index / self.rate)

    def dataset(self, series: Series, instance_index: int) -> None:
        return None


def picture(square: int, *, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    """Return a dark `(H, W, 3)` uint8 frame with a bright square of that side at (8, 20)."""
    pixels = np.full((*size, 3), 20, np.uint8)
    pixels[8 : 8 + square, 20 : 20 + square] = 250
    return pixels


def image_series(path: Path, root: Path) -> Series:
    """Return the series of one image file."""
    pixels = (64, 96)
    return Series(
        kind=Kind.IMAGES,
        instances=(Instance(path),),
        source=ImageFiles(),
        source_path=root,
        relative=path.relative_to(root).as_posix(),
        rows=pixels[0],
        columns=pixels[1],
        frame_count=1,
    )


def find(root: Path) -> Iterator[Series | Skipped]:
    """Return what is below a folder, in the order of the names."""
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        relative = path.relative_to(root).as_posix()
        if path.suffix == ".png":
            yield image_series(path, root)
        else:
            yield Skipped(path, Reason.NOT_AN_IMAGE, f"{path.name} is no image", relative)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six images in two folders, one of them empty of findings, one broken; and a README."""
    root = tmp_path / "in"
    for index, side in enumerate([10, 20, 0, 30, 40]):
        path = root / f"p{index % 2}" / f"frame{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(side)).save(path)
    (root / "p0" / "torn.png").write_bytes((root / "p0" / "frame0.png").read_bytes()[:60])
    (root / "README").write_text("hello")
    return root


@pytest.fixture
def segmenter() -> Segmenter:
    """Finds pixels above half of full scale; its frames keep their size."""
    task = replace(load_preset("polyp"), image_size=(64, 96))
    return Segmenter(task, Bright(), device="cpu")


def with_weights(segmenter: Segmenter, sha256: str = WEIGHTS) -> Model:
    """Return a segmenter's model as if it had been read from a file of that hash."""
    source = ModelSource(segmenter.task, Path("weights.safetensors"))
    vars(source)["sha256"] = sha256  # as if it had been computed
    return replace(segmenter.model, source=source)


RunBatch = Callable[..., Outcome]


@pytest.fixture
def run_batch(segmenter: Segmenter) -> RunBatch:
    """Run over a folder of images, or over given items."""

    def call(
        root: Path, out: Path, *, items: Sequence[Series] | None = None, **settings
    ) -> Outcome:
        threshold = settings.pop("threshold", None)
        used = segmenter
        if threshold is not None:
            used = Segmenter(replace(segmenter.task, threshold=threshold), Bright(), device="cpu")
        given = find(root) if items is None else items
        return run(given, out, Settings(**settings), model=with_weights(used))

    return call
