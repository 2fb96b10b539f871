"""The right mask on the right frame, as readers see it that share no code with the writer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.typing import NDArray
from PIL import Image

from sam2unet_core.task import Task
from sam2unet_core.types import Series

Write = Callable[..., Path]
Make = Callable[[str], Series]
MaskOf = Callable[..., NDArray[np.bool_]]


def raw_planes(path: Path) -> dict[tuple[str, int, int], NDArray[np.bool_]]:
    """Masks by (source instance UID, source frame, segment), from the bits as PS3.5 has them."""
    file = pydicom.dcmread(path)
    bits = np.unpackbits(np.frombuffer(file.PixelData, np.uint8), bitorder="little")
    wanted = file.NumberOfFrames * 37 * 53
    assert 0 <= len(bits) - wanted < 16, "more padding than to an even number of bytes"
    assert not bits[wanted:].any()
    planes = bits[:wanted].reshape(file.NumberOfFrames, 37, 53).astype(bool)
    found = {}
    for item, plane in zip(file.PerFrameFunctionalGroupsSequence, planes, strict=True):
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        frame = int(source.get("ReferencedFrameNumber", 1))
        segment = int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        found[str(source.ReferencedSOPInstanceUID), frame, segment] = plane
    return found


def test_each_frames_bits_are_the_mask_of_the_frame_it_refers_to(
    write: Write, series: Series, task: Task, mask_of: MaskOf
) -> None:
    found = raw_planes(write(series, task))
    assert len(found) == 2 * series.frame_count
    for frame in series.frames():
        uid = str(series.instances[frame.instance].sop_instance_uid)
        for k in (0, 1):
            got = found[uid, frame.number, k + 1]
            np.testing.assert_array_equal(got, mask_of(frame.index)[k], f"{frame.index} {k}")


def test_a_stride_leaves_references_to_the_frames_that_were_looked_at(
    write: Write, one_class: Task, make_series: Make, mask_of: MaskOf
) -> None:
    found = raw_planes(write(make_series("endoscopy_video"), one_class, stride=2))
    assert sorted(frame for _, frame, _ in found) == [1, 3, 5]
    for (_, frame, _), plane in found.items():
        np.testing.assert_array_equal(plane, mask_of(frame - 1)[0])


@pytest.mark.parametrize("seg_type", ["binary", "fractional", "labelmap"])
@pytest.mark.parametrize("name", ["endoscopy_video", "ultrasound_cine", "enhanced_ct"])
def test_highdicom_gives_back_the_masks_of_multi_frame_sources(
    name: str, seg_type: str, make_series: Make, write: Write, task: Task, mask_of: MaskOf
) -> None:
    series = make_series(name)
    seg = highdicom.seg.segread(write(series, task, seg_type=seg_type))
    uid = str(series.instances[0].sop_instance_uid)
    numbers = list(range(1, series.frame_count + 1))
    pixels = seg.get_pixels_by_source_frame(uid, numbers)  # (frames, H, W, K)
    assert pixels.shape == (series.frame_count, 37, 53, 2)
    for index in range(series.frame_count):
        masks = mask_of(index).astype(float)
        if seg_type == "labelmap":
            masks[1] *= 1 - masks[0]  # of two equally likely classes the first is taken
        scale = round(0.75 * 255) / 255 if seg_type == "fractional" else 1
        np.testing.assert_allclose(np.moveaxis(pixels[index], 2, 0), masks * scale, atol=1e-6)


@pytest.mark.parametrize("name", ["endoscopy_stack", "ct_volume", "ct_tilted"])
def test_highdicom_gives_back_the_masks_of_single_frame_sources(
    name: str, make_series: Make, write: Write, task: Task, mask_of: MaskOf
) -> None:
    series = make_series(name)
    seg = highdicom.seg.segread(write(series, task))
    uids = [str(each.sop_instance_uid) for each in series.instances]
    pixels = seg.get_pixels_by_source_instance(uids)
    for index in range(series.frame_count):
        np.testing.assert_array_equal(np.moveaxis(pixels[index], 2, 0), mask_of(index))


def test_simpleitk_reads_the_frames_of_a_video(
    write: Write, one_class: Task, make_series: Make, mask_of: MaskOf
) -> None:
    volume = SimpleITK.GetArrayFromImage(
        SimpleITK.ReadImage(write(make_series("endoscopy_video"), one_class))
    )
    assert volume.shape == (5, 37, 53)
    got = (volume > 0).ravel()
    expected = np.array([mask_of(index)[0] for index in range(5)]).ravel()
    # GDCM, inside SimpleITK 2.5, leaves the bits after the last whole byte to chance: here 5
    whole = len(expected) // 8 * 8
    np.testing.assert_array_equal(got[:whole], expected[:whole])


def world_points(series: Series, masks: list[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """LPS of each pixel of a segment, by the formula of PS3.3 C.7.6.2.1.1, sorted."""
    points = []
    for index, first in enumerate(series.geometry.positions):
        for row, column in np.argwhere(masks[index]):
            points.append(
                first
                + series.geometry.row_cosine * column * 0.5
                + series.geometry.column_cosine * row * 0.8
            )
    return np.array(sorted(np.round(points, 3).tolist()))


@pytest.mark.parametrize("name", ["ct_volume", "enhanced_ct"])
def test_dcmqi_finds_each_segment_in_place_with_negated_cosines_and_oblong_pixels(
    name: str, make_series: Make, write: Write, task: Task, mask_of: MaskOf, tmp_path: Path
) -> None:
    program = Path(sys.executable).with_name("segimage2itkimage")
    if not program.exists():
        pytest.skip("needs dcmqi: pip install dcmqi")
    series = make_series(name)
    path = write(series, task)
    subprocess.run(
        [program, "--inputDICOM", path, "--outputDirectory", tmp_path, "--prefix", "out"],
        check=True,
        capture_output=True,
    )
    for segment in (0, 1):
        image = SimpleITK.ReadImage(tmp_path / f"out-{segment + 1}.nrrd")
        indices = np.argwhere(SimpleITK.GetArrayFromImage(image) > 0)  # (slice, row, column)
        points = [image.TransformIndexToPhysicalPoint(i[::-1].tolist()) for i in indices]
        got = np.array(sorted(np.round(points, 3).tolist()))
        masks = [mask_of(index)[segment] for index in range(series.frame_count)]
        np.testing.assert_allclose(got, world_points(series, masks), atol=2e-3)


def test_tilted_slices_keep_their_own_positions(
    write: Write, one_class: Task, make_series: Make, mask_of: MaskOf
) -> None:
    file = pydicom.dcmread(write(make_series("ct_tilted"), one_class))
    items = file.PerFrameFunctionalGroupsSequence
    places = [list(item.PlanePositionSequence[0].ImagePositionPatient) for item in items]
    assert places == [[40 - 3 * n, pytest.approx(-60.5 + 0.7 * n), 120.25] for n in range(4)]
    shared = file.SharedFunctionalGroupsSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [0, 1, 0, 0, 0, -1]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.8, 0.5]
    assert shared.PixelMeasuresSequence[0].SpacingBetweenSlices == 3


def test_dcmtk_reads_every_item_of_the_file(write: Write, series: Series, task: Task) -> None:
    program = shutil.which("dcmdump")
    if program is None:
        pytest.skip("needs dcmdump: apt-get install dcmtk")
    done = subprocess.run(
        [program, "+P", "ReferencedSegmentNumber", write(series, task)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    assert len(done.stdout.splitlines()) == 2 * series.frame_count


@pytest.mark.parametrize("name", ["endoscopy_video", "endoscopy_stack", "ct_volume"])
def test_dcmtk_shows_each_frame_as_it_was_masked(
    name: str,
    make_series: Make,
    write: Write,
    one_class: Task,
    mask_of: MaskOf,
    tmp_path: Path,
) -> None:
    program = shutil.which("dcm2img") or shutil.which("dcm2pnm")
    if program is None:
        pytest.skip("needs dcm2pnm: apt-get install dcmtk")
    series = make_series(name)
    path = write(series, one_class)
    for index in range(series.frame_count):
        shown = tmp_path / f"{index}.pgm"
        frame = ["+F", str(index + 1)]
        subprocess.run([program, "+Wm", *frame, path, shown], check=True, capture_output=True)
        pixels = np.asarray(Image.open(shown).convert("L"))
        np.testing.assert_array_equal(pixels > 0, mask_of(index)[0])
