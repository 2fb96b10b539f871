"""Overlays that any viewer shows: valid, in order, with the drawing where the mask is."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image

from sam2unet_core.dicom.secondary_capture import SecondaryCaptureWriter
from sam2unet_core.dicom.uids import Provenance
from sam2unet_core.errors import DataError
from sam2unet_core.task import Task
from sam2unet_core.types import Frame, Series

Make = Callable[..., Series]
MaskOf = Callable[..., NDArray[np.bool_]]


@pytest.fixture
def write_overlay(
    one_class: Task, provenance: Provenance, tmp_path: Path, mask_of: MaskOf
) -> Callable[[Series], Path]:
    def write(series: Series, *, name: str = "overlay.dcm") -> Path:
        path = tmp_path / name
        with SecondaryCaptureWriter(path, series, task=one_class, provenance=provenance) as writer:
            for frame in series.frames():
                writer.add(frame, mask_of(frame.index)[0].astype(np.uint8))
        return path

    return write


def test_every_source_gives_a_valid_overlay(
    series: Series,
    write_overlay: Callable[[Series], Path],
    dciodvfy: Callable[[Path], list[str]],
) -> None:
    path = write_overlay(series)
    assert dciodvfy(path) == []
    file = pydicom.dcmread(path)
    assert file.get("NumberOfFrames", 1) == series.frame_count
    assert "not for diagnosis" in file.ImageComments
    assert file.SOPClassUID == (
        "1.2.840.10008.5.1.4.1.1.7" if series.frame_count == 1 else "1.2.840.10008.5.1.4.1.1.7.4"
    )


def test_dcmtk_decodes_the_drawing_onto_the_mask_of_each_frame(
    make_series: Make,
    one_class: Task,
    provenance: Provenance,
    mask_of: MaskOf,
    tmp_path: Path,
) -> None:
    program = shutil.which("dcmj2pnm") or shutil.which("dcm2img")
    if program is None:
        pytest.skip("needs dcmj2pnm: apt-get install dcmtk")
    series = make_series("endoscopy_video")
    path = tmp_path / "overlay.dcm"
    scale = 16  # JPEG blurs: squares of 16 pixels have an inside
    with SecondaryCaptureWriter(path, large(series), task=one_class, provenance=provenance) as w:
        for index in (0, 1, 2, 3, 4):
            labels = np.kron(mask_of(index)[0], np.ones((scale, scale))).astype(np.uint8)
            grey = np.full((*labels.shape, 3), 60, np.uint8)
            w.add(Frame(grey, index, 0, index + 1, index / 25), labels)
    for index in (0, 1, 4):
        image = tmp_path / f"{index}.ppm"
        subprocess.run(
            [program, "+F", str(index + 1), path, image], check=True, capture_output=True
        )
        pixels = np.asarray(Image.open(image)).astype(int)
        centres = pixels[scale // 2 :: scale, scale // 2 :: scale]  # (37, 53, 3)
        expected = mask_of(index)[0]
        inside = (centres - 60)[:-4, :, 0] > 25  # red is drawn in; the caption is at the foot
        np.testing.assert_array_equal(inside, expected[:-4])


def test_a_video_keeps_its_pace_and_pictures_are_pages(
    make_series: Make, write_overlay: Callable[[Series], Path]
) -> None:
    video = pydicom.dcmread(write_overlay(make_series("endoscopy_video")))
    assert float(video.FrameTime) == pytest.approx(40)  # 25 frames a second
    pictures = pydicom.dcmread(write_overlay(make_series("endoscopy_stack")))
    assert pictures.FrameIncrementPointer == pydicom.tag.Tag("PageNumberVector")
    assert list(pictures.PageNumberVector) == [1, 2, 3]
    sources = [item.ReferencedSOPInstanceUID[-3:] for item in pictures.SourceImageSequence]
    assert sources == ["3.0", "3.1", "3.2"]


def test_the_offset_table_points_at_each_frame(
    make_series: Make, write_overlay: Callable[[Series], Path]
) -> None:
    file = pydicom.dcmread(write_overlay(make_series("endoscopy_video")))
    data = file.PixelData
    offsets = np.frombuffer(data[8:28], "<u4")
    assert int.from_bytes(data[4:8], "little") == 20
    for offset in offsets:
        item = data[28 + offset :]
        assert item[:4] == b"\xfe\xff\x00\xe0"
        assert item[8:10] == b"\xff\xd8"


def test_the_same_frames_give_the_same_bytes(
    make_series: Make, write_overlay: Callable[..., Path]
) -> None:
    series = make_series("endoscopy_stack")
    first, again = write_overlay(series, name="a"), write_overlay(series, name="b")
    assert first.read_bytes() == again.read_bytes()


def test_pictures_that_may_show_a_name_are_marked(
    make_series: Make, write_overlay: Callable[[Series], Path]
) -> None:
    series = make_series("endoscopy_stack")
    assert pydicom.dcmread(write_overlay(series)).BurnedInAnnotation == "YES"
    object.__setattr__(series, "burned_in", False)
    assert pydicom.dcmread(write_overlay(series)).BurnedInAnnotation == "NO"


def test_a_forced_task_is_written_into_every_picture(
    make_series: Make, one_class: Task, provenance: Provenance, tmp_path: Path
) -> None:
    series = large(make_series("endoscopy_stack"))
    feet = []
    for by in (provenance, replace(provenance, forced_task=True)):
        path = tmp_path / "overlay.dcm"
        with SecondaryCaptureWriter(path, series, task=one_class, provenance=by) as writer:
            pixels = np.zeros((series.rows, series.columns, 3), np.uint8)
            writer.add(Frame(pixels, 0, 0, 1), pixels[:, :, 0])
        feet.append(pydicom.dcmread(path).pixel_array[-30:].astype(int))
    assert "task forced" in replace(provenance, forced_task=True).caption("Polyp")
    assert (feet[0] > 200).any()
    assert np.abs(feet[0] - feet[1]).max() > 100


def test_an_overlay_of_no_frame_is_refused(
    make_series: Make, one_class: Task, provenance: Provenance, tmp_path: Path
) -> None:
    series = make_series("endoscopy_stack")
    with (
        pytest.raises(DataError, match="no frame was segmented"),
        SecondaryCaptureWriter(tmp_path / "a", series, task=one_class, provenance=provenance),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def large(series: Series) -> Series:
    object.__setattr__(series, "rows", 37 * 16)
    object.__setattr__(series, "columns", 53 * 16)
    return series
