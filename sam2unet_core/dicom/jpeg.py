"""Try lossless JPEG before python-gdcm gets it: a broken stream would end the whole process.

python-gdcm is the only decoder of it that may be shipped, and lets GDCM's C++ exceptions through.
SimpleITK holds the same codec and turns them into Python's.
"""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk  # noqa: N813 - its customary name
from pydicom.uid import JPEGLossless, JPEGLosslessSV1

from sam2unet_core.errors import InputError

CHECKED = (JPEGLossless, JPEGLosslessSV1)


def check_lossless(path: Path) -> None:
    """Decode a file once, all of its frames, and forget what came out.

    Raises:
        InputError: it does not decode.
    """
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.Execute()
    except RuntimeError as error:
        raise InputError(
            "the lossless JPEG stream is broken; copy the file again", reason="corrupt"
        ) from error
