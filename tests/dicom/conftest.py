"""DICOM files made for a test, one attribute at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from sam2unet_core.dicom import open_study

SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
UNKNOWN_TO_PYDICOM = {
    "1.2.840.10008.1.2.4.110": "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.8.1": "1.2.840.10008.1.2.4.50",
}
"""Syntaxes that pydicom does not write, and one of the same length that stands in for it."""
Write = Callable[..., Path]
Show = Callable[..., NDArray[np.uint8]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write `stored` values, `(H, W)`, `(H, W, 3)` or with frames in front, as a DICOM file."""

    def _write(
        name: str,
        stored: NDArray[Any],
        *,
        syntax: UID = ExplicitVRLittleEndian,
        colour: bool = False,
        frames: int | None = None,
        pixel_data: bytes | None = None,
        **attributes: Any,
    ) -> Path:
        dataset = Dataset()
        dataset.SOPClassUID = SECONDARY
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[name])
        dataset.StudyInstanceUID = "1.2.3"
        dataset.SeriesInstanceUID = "1.2.3.4"
        dataset.Modality = "OT"
        one = stored if frames is None else stored[0]
        dataset.Rows, dataset.Columns = one.shape[:2]
        dataset.SamplesPerPixel = 3 if colour else 1
        dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
        if colour:
            dataset.PlanarConfiguration = 0
        bits = 8 * stored.dtype.itemsize
        dataset.BitsAllocated = dataset.BitsStored = bits
        dataset.HighBit = bits - 1
        dataset.PixelRepresentation = int(stored.dtype.kind == "i")
        if frames is not None:
            dataset.NumberOfFrames = frames
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        content = stored.tobytes() if pixel_data is None else pixel_data
        dataset.PixelData = content + b"\0" * (len(content) % 2)
        dataset["PixelData"].VR = "OB" if bits == 8 or syntax.is_encapsulated else "OW"
        dataset.file_meta = FileMetaDataset()
        known = UNKNOWN_TO_PYDICOM.get(syntax, syntax)
        dataset.file_meta.TransferSyntaxUID = known
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
        if known != syntax:
            size = len(known) + len(known) % 2
            former, wanted = (uid.encode().ljust(size, b"\0") for uid in (known, syntax))
            path.write_bytes(path.read_bytes().replace(former, wanted, 1))
        return path

    return _write


@pytest.fixture
def show() -> Show:
    """Return the pixels of all frames of the one series in a file, `(N, H, W, 3)`."""

    def _show(path: Path, **options: Any) -> NDArray[np.uint8]:
        (series,) = open_study(path)
        return np.stack([frame.pixels for frame in series.frames(**options)])

    return _show
