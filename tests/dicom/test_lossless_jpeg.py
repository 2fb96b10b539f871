"""Lossless JPEG decodes, and a broken stream of it is an error, not the end of the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gdcm
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames

from sam2unet_core.dicom import open_study

READ = """
import sys
from sam2unet_core.dicom import open_study
(series,) = open_study(sys.argv[1])
print(sum(1 for _ in series.frames(on_error=lambda index, error: print(error.reason))))
"""


@pytest.fixture
def coded(write) -> tuple[Path, np.ndarray]:
    """A file in JPEG Lossless SV1, and its greys."""
    stored = np.random.default_rng(0).integers(0, 256, (64, 96), np.uint8)
    path = write("a.dcm", stored)
    reader, change, writer = (
        gdcm.ImageReader(),
        gdcm.ImageChangeTransferSyntax(),
        gdcm.ImageWriter(),
    )
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return path, stored


def test_lossless_jpeg_is_exact(coded) -> None:
    path, stored = coded
    (series,) = open_study(path)
    assert series.instances[0].transfer_syntax_uid == "1.2.840.10008.1.2.4.70"
    (frame,) = series.frames()
    np.testing.assert_array_equal(frame.pixels[..., 1], stored)


def test_a_broken_stream_does_not_end_the_process(coded) -> None:
    path, _ = coded
    dataset = dcmread(path)
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    broken = stream.replace(b"\xff\xc4", b"\xff\x00", 1)  # its Huffman table is no marker any more
    dataset.PixelData = encapsulate([broken + b"\0" * (len(broken) % 2)])
    dataset.save_as(path)
    command = [sys.executable, "-c", READ, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["corrupt", "0"]
