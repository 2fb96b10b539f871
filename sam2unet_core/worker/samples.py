"""`make_sample`: draws example data, so that a client needs no download to try things."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam2unet_core.files import file_sha256
from sam2unet_core.protocol import ProtocolError, inside
from sam2unet_core.worker.exchange import Exchange
from sam2unet_core.worker.fields import Fields
from sam2unet_core.worker.running import RunningRequest

CLIP_FRAMES = 100
CLIP_SIZE = (480, 640)


def make_sample(fields: Fields, job: RunningRequest, exchange: Exchange) -> dict[str, Any]:
    """Draw a sample into the exchange folder.

    Raises:
        ProtocolError: there is no such kind, or the file name does not fit it.
        MissingExtraError: a library for it is not installed.
    """
    kind = fields.choice("kind", tuple(SAMPLES), None)
    output = fields.needed_text("output")
    fields.end()
    if kind is None:
        raise ProtocolError("bad_request", f"kind: expected one of {', '.join(SAMPLES)}")
    sample = SAMPLES[kind]
    inside(exchange.folder, output)
    if not output.endswith(sample.suffix):
        raise ProtocolError("bad_request", f"output: expected a name that ends in {sample.suffix}")
    path = exchange.adopt(output)
    path.unlink(missing_ok=True)
    job.check()
    sample.draw(path)
    return {"file": output, "sha256": file_sha256(path)}


def _draw_clip(path: Path) -> None:
    from sam2unet_core.phantom.dicom import write_video  # noqa: PLC0415 - seldom needed

    write_video(path, frames=CLIP_FRAMES, seed=SEED, size=CLIP_SIZE)


def _draw_volume(path: Path) -> None:
    import SimpleITK  # noqa: PLC0415 - seldom needed, slow to import

    from sam2unet_core.phantom.volume import SPACING_MM, draw_volume  # noqa: PLC0415 - as above

    voxels, _ = draw_volume(SEED)
    image = SimpleITK.GetImageFromArray(voxels)
    image.SetSpacing(tuple(reversed(SPACING_MM)))
    SimpleITK.WriteImage(image, str(path), useCompression=True)


@dataclass(frozen=True)
class Sample:
    """A kind of sample.

    Attributes:
        suffix: of its file.
        draw: writes the file.
    """

    suffix: str
    draw: Callable[[Path], None]


SEED = 7
SAMPLES = {
    "clip": Sample(".dcm", _draw_clip),
    "volume": Sample(".nrrd", _draw_volume),
}
"""A drawn colonoscopy clip as DICOM video, and a drawn volume as NRRD."""
