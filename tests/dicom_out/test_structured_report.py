"""Areas and counts as other software reads them from the report."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from sam2unet_core.dicom import structured_report
from sam2unet_core.dicom.structured_report import ReportWriter
from sam2unet_core.dicom.uids import Provenance
from sam2unet_core.task import Task
from sam2unet_core.types import Series

Make = Callable[..., Series]
MaskOf = Callable[..., NDArray[np.bool_]]


@pytest.fixture
def write_report(
    task: Task, provenance: Provenance, tmp_path: Path, mask_of: MaskOf
) -> Callable[..., Path]:
    def write(series: Series, *, name: str = "report.dcm", found: bool = True) -> Path:
        path = tmp_path / name
        with ReportWriter(path, series, task=task, provenance=provenance) as writer:
            for frame in series.frames():
                writer.add(frame, mask_of(frame.index if found else 1))
        return path

    return write


def values(group: object) -> dict[str, float]:
    return {each.name.meaning: each.value for each in group.get_measurements()}


def test_every_source_gives_a_valid_report(
    series: Series, write_report: Callable[..., Path], dciodvfy: Callable[[Path], list[str]]
) -> None:
    path = write_report(series)
    assert dciodvfy(path) == []
    program = shutil.which("dsrdump")
    if program is None:
        pytest.skip("needs dsrdump: apt-get install dcmtk")
    done = subprocess.run([program, path], capture_output=True, text=True, check=True)
    assert done.stdout.count("Measurement Group") >= 2


def test_areas_are_in_square_millimetres_where_the_spacing_is_known(
    make_series: Make, write_report: Callable[..., Path], mask_of: MaskOf
) -> None:
    report = highdicom.sr.srread(write_report(make_series("ultrasound_cine")))
    groups = report.content.get_image_measurement_groups()
    polyps = [g for g in groups if g.finding_type.value == "68496003"]
    # pixels of 0.5 x 0.25 mm are 0.125 mm2; frame 1 of 0 to 3 holds nothing
    areas = [int(mask_of(n)[0].sum()) * 0.125 for n in range(4)]
    assert len(polyps) == 1 + 3
    assert values(polyps[0]) == {"Number of Frames": 4, "Area": pytest.approx(max(areas))}
    for group, index in zip(polyps[1:], (0, 2, 3), strict=True):
        assert values(group) == {
            "Area": pytest.approx(areas[index]),
            "Number of occurrences": 1,
        }
        (area,) = (m for m in group.get_measurements() if m.name.meaning == "Area")
        assert area.unit.value == "mm2"
        (image,) = group.source_images
        assert image.referenced_frame_numbers == [index + 1]


def test_areas_are_in_pixels_where_no_spacing_is_known(
    make_series: Make, write_report: Callable[..., Path], mask_of: MaskOf
) -> None:
    report = highdicom.sr.srread(write_report(make_series("endoscopy_video")))
    group = report.content.get_image_measurement_groups()[1]
    (area,) = (m for m in group.get_measurements() if m.name.meaning == "Area")
    assert (area.value, area.unit.value) == (int(mask_of(0)[0].sum()), "{pixels}")


def test_regions_that_touch_at_a_corner_are_one(
    make_series: Make, task: Task, provenance: Provenance, tmp_path: Path
) -> None:
    series = make_series("endoscopy_bare")
    masks = np.zeros((2, 37, 53), bool)
    masks[0, 2:4, 2:4] = masks[0, 4:6, 4:6] = True  # corner to corner
    masks[0, 20:22, 20:22] = True
    path = tmp_path / "report.dcm"
    with ReportWriter(path, series, task=task, provenance=provenance) as writer:
        writer.add(next(series.frames()), masks)
    groups = highdicom.sr.srread(path).content.get_image_measurement_groups()
    assert values(groups[1])["Number of occurrences"] == 2


def test_nothing_found_is_reported_as_such(
    make_series: Make, write_report: Callable[..., Path], dciodvfy: Callable[[Path], list[str]]
) -> None:
    path = write_report(make_series("endoscopy_video"), found=False)
    groups = highdicom.sr.srread(path).content.get_image_measurement_groups()
    assert [values(group) for group in groups] == [{"Number of Frames": 5}] * 2
    assert dciodvfy(path) == []
    assert b"Polyp: found in 0 of 5 segmented frames." in path.read_bytes()
    assert b"not for diagnosis" in path.read_bytes()
    assert b"weights_sha256=" + b"ab" * 32 in path.read_bytes()


def test_a_long_video_lists_the_largest_and_counts_all(
    make_series: Make, write_report: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structured_report, "MOST_FRAMES", 2)
    path = write_report(make_series("endoscopy_video"))
    groups = highdicom.sr.srread(path).content.get_image_measurement_groups()
    polyps = [g for g in groups if g.finding_type.value == "68496003"]
    listed = [g.source_images[0].referenced_frame_numbers for g in polyps[1:]]
    assert listed == [[4], [5]]  # the pattern grows from frame to frame
    text = path.read_bytes()
    assert b"found in 4 of 5 frames" in text
    assert b"Only the 2 frames with the largest areas are listed" in text


def test_the_first_group_of_a_ct_holds_its_area_and_count(
    make_series: Make, write_report: Callable[..., Path], mask_of: MaskOf
) -> None:
    file = pydicom.dcmread(write_report(make_series("ct_volume")))
    measured = [
        float(number.MeasuredValueSequence[0].NumericValue)
        for group in file.ContentSequence[-1].ContentSequence[1:2]
        for number in group.ContentSequence
        if number.ValueType == "NUM"
    ]
    assert measured == [pytest.approx(int(mask_of(0)[0].sum()) * 0.4), 1]


def test_the_same_result_gives_the_same_bytes(
    make_series: Make, write_report: Callable[..., Path]
) -> None:
    series = make_series("ultrasound_cine")
    first, again = write_report(series, name="a"), write_report(series, name="b")
    assert first.read_bytes() == again.read_bytes()


def test_a_source_without_uids_is_referred_to_by_stand_ins(
    make_series: Make, write_report: Callable[..., Path], dciodvfy: Callable[[Path], list[str]]
) -> None:
    path = write_report(replace(make_series("endoscopy_video"), series_uid="999.1"))
    assert dciodvfy(path) == []
    assert b"references use substitutes" in path.read_bytes()
