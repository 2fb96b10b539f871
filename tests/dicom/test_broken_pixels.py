"""Pixels that cannot be decoded: the reason is true, and one bad file ends nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from sam2unet_core.dicom import open_study, scan
from sam2unet_core.errors import InputError
from sam2unet_core.types import Skipped

RAMP = np.array([[0, 64, 128, 255]], np.uint8)
RLE_RAMP = (
    (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + b"\3\0\x40\x80\xff\0"
)
"""One segment at byte 64: a literal run of four (PS3.5 G.3.1), padded."""


def test_too_little_pixel_data_is_truncated(write) -> None:
    path = write("a.dcm", RAMP, pixel_data=b"\1\2")
    (found,) = scan(path)
    assert isinstance(found, Skipped)
    assert (found.reason, found.relative) == ("truncated", "a.dcm")
    assert "2 of 4 bytes" in found.message


def test_fewer_compressed_frames_than_announced_are_truncated(write) -> None:
    frames = np.zeros((4, 2, 2), np.uint8)
    path = write("plain.dcm", frames, frames=4)
    dataset = dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.NumberOfFrames = 5
    dataset.save_as(path)
    (series,) = open_study(path)
    with pytest.raises(InputError, match=r"plain\.dcm: ") as caught:
        list(series.frames())
    assert caught.value.reason in ("truncated", "corrupt")


def test_a_broken_stream_is_corrupt_and_its_error_quotes_nothing(write) -> None:
    path = write("a.dcm", RAMP, syntax=RLELossless, pixel_data=encapsulate([b"SENTINEL" * 20]),
                 PatientName="SENTINEL")  # fmt: skip
    (series,) = open_study(path)
    with pytest.raises(InputError, match="cannot be decoded") as caught:
        list(series.frames())
    assert caught.value.reason == "corrupt"
    assert "SENTINEL" not in str(caught.value)


def test_a_private_transfer_syntax_is_named(write) -> None:
    path = write("a.dcm", RAMP)
    content = path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.3.46.670589.33.1.4")
    path.write_bytes(content)
    (found,) = scan(path)
    assert isinstance(found, Skipped)
    assert found.reason == "unsupported_transfer_syntax"
    assert "1.3.46.670589.33.1.4" in found.message


def test_one_bad_instance_does_not_end_its_series(write) -> None:
    for number in (1, 2, 3):
        stream = encapsulate([b"no run-length code"]) if number == 2 else encapsulate([RLE_RAMP])
        path = write(f"{number}.dcm", RAMP, syntax=RLELossless, pixel_data=stream,
                     InstanceNumber=number)  # fmt: skip
    (series,) = open_study(path.parent)
    told: list[tuple[int, str, str]] = []
    frames = series.frames(on_error=lambda index, e: told.append((index, e.reason, str(e)[:7])))
    assert [(f.index, f.instance) for f in frames] == [(0, 0), (2, 2)]
    assert told == [(1, "corrupt", "2.dcm: ")]
    with pytest.raises(InputError, match=r"2\.dcm: "):
        list(series.frames())
