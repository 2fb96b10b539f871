"""A batch run that kills itself with SIGKILL at a point given on the command line.

python killed_run.py IN OUT POINT [FORMATS]     POINT: frame:N, publish:N, line:N, write:N or none
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sam2unet_core.batch import Settings, run
from sam2unet_core.batch.folder import Manifest
from sam2unet_core.batch.formats import Staging
from sam2unet_core.inference import engine
from sam2unet_core.inputs import find_inputs
from sam2unet_core.media import image
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.task import load_preset

spec = importlib.util.spec_from_file_location(
    "batch_conftest", Path(__file__).parent / "conftest.py"
)
conftest = importlib.util.module_from_spec(spec)
sys.modules["batch_conftest"] = conftest
spec.loader.exec_module(conftest)


def die(*_: object, **__: object) -> None:
    """End at once, as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def at(count: int, act: Callable[..., object], *, first: Callable[..., object]) -> Callable:
    """Return a function that calls `act`, and `first` in its place on the count-th call."""
    calls = itertools.count(1)

    def call(*args: object, **kwargs: object) -> object:
        return (first if next(calls) == count else act)(*args, **kwargs)

    return call


def half_a_line(book: Manifest, lines: object) -> None:
    """Write the first half of a manifest line, then die."""
    text = next(iter(lines)).to_json()
    with book.path.open("ab") as stream:
        stream.write(text[: len(text) // 2].encode())
    die()


def half_a_file(path: Path, *_: object) -> None:
    """Write the beginning of a file, then die."""
    Path(path).write_bytes(b"\x89PNG half")
    die()


def main(source: Path, out: Path, point: str, formats: str) -> None:
    """Run, and die where asked."""
    where, _, number = point.partition(":")
    count = int(number or 0)
    if where == "frame":
        engine.to_result = at(count, engine.to_result, first=die)
    elif where == "publish":
        publish = Staging.publish
        Staging.publish = at(count, publish, first=lambda self: (publish(self), die()))
    elif where == "line":
        append = Manifest.append
        Manifest.append = at(count, append, first=half_a_line)
    elif where == "write":
        image.write_mask = at(count, image.write_mask, first=half_a_file)
    task = replace(load_preset("polyp"), image_size=(64, 96))
    segmenter = Segmenter(task, conftest.Bright(), device="cpu")
    settings = Settings(formats=tuple(formats.split(",")))
    run(
        find_inputs([source]) if "seg" in formats else conftest.find(source),
        out,
        settings,
        model=conftest.with_weights(segmenter),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *[*sys.argv[3:], "png,overlay,probabilities"][:2])
