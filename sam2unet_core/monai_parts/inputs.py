"""Which way a folder is segmented: images one by one, anything else as a batch."""

from __future__ import annotations

from pathlib import Path

from sam2unet_core.data import Sample, read_dataset
from sam2unet_core.dicom.files import is_dicom
from sam2unet_core.media.kinds import is_companion, medium_of


def image_samples(dataset_dir: str) -> list[Sample]:
    """Return the images of a folder; none where it holds DICOM files, video or volumes.

    Raises:
        DataError: there is nothing to segment.
    """
    folder = Path(dataset_dir)
    files = (path for path in folder.rglob("*") if path.is_file())
    if any(_is_other_medium(path) for path in files):
        return []
    return read_dataset(folder, masks=False)


def _is_other_medium(path: Path) -> bool:
    named_so = path.name.lower().endswith(".dcm") and not is_companion(path)
    return named_so or is_dicom(path) or medium_of(path) in ("video", "volume")
