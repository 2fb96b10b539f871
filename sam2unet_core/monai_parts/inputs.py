"""The images of a folder, for MONAI's evaluator."""

from __future__ import annotations

from pathlib import Path

from sam2unet_core.data import Sample, read_dataset


def image_samples(dataset_dir: str) -> list[Sample]:
    """Return the images of a folder, or of the `images/` in it.

    Raises:
        DataError: there are none.
    """
    return read_dataset(Path(dataset_dir), masks=False)
