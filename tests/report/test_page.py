"""What the report says: counts, areas, timelines; what was typed by others stays text."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sam2unet_core.report import Entry, Failure, Findings, FindingsCollector, Page, render
from sam2unet_core.report.findings import by_group
from sam2unet_core.report.page import clock, timeline
from sam2unet_core.task import load_preset
from sam2unet_core.types import Frame

TASK = load_preset("polyp")


def gather(sides: list[int], *, seconds: float | None = None, task=TASK) -> Findings:
    """Return the findings of frames with one square each, of these sides, at 0.75."""
    collector = FindingsCollector(task, seconds)
    for index, side in enumerate(sides):
        pixels = np.full((60, 80, 3), 100, np.uint8)
        mask = np.zeros((60, 80), bool)
        mask[5 : 5 + side, 9 : 9 + side] = True
        probabilities = np.where(mask, 0.75, 0.1).astype(np.float32)[None]
        time_s = None if seconds is None else index * seconds
        collector.add(
            Frame(pixels, index, 0, index + 1, time_s),
            probabilities,
            masks=mask[None],
            labels=mask.astype(np.uint8),
        )
    return collector.result()


def entry(findings: Findings, **more) -> Entry:
    return Entry("a/b", "a", "video", findings, **more)


def test_findings_are_counted_by_frame_and_the_largest_area_is_kept():
    found = gather([0, 3, 0, 5, 2])
    assert (found.frames, found.frames_with_findings) == (5, 3)
    assert found.largest_px == 25
    assert found.areas_px == (0, 9, 0, 25, 4)
    assert found.mean_confidence == 0.75
    assert [each.frames for each in found.classes] == [3]


def test_area_is_in_square_millimetres_where_a_spacing_is_known():
    found = gather([20])
    with_spacing = render(Page("T", [entry(found, spacing_mm=(0.5, 0.25))]))
    assert "50 mm²" in with_spacing  # 400 pixels of 0.125 mm2
    without = render(Page("T", [entry(found)]))
    assert "400 px" in without
    assert "mm²" not in without.replace("in mm² where", "")


def test_thumbnail_shows_the_contour_in_the_colour_of_the_class():
    found = gather([0, 30])
    (picture,) = found.thumbnails
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(picture.jpeg))))
    assert (picture.number, picture.area_px) == (2, 900)
    assert np.abs(pixels[5, 20].astype(int) - TASK.classes[0].rgb).max() < 60
    assert np.abs(pixels[55, 70].astype(int) - 100).max() < 12


def test_a_series_without_findings_still_shows_its_first_frame():
    found = gather([0, 0, 0])
    assert [each.number for each in found.thumbnails] == [1]
    page = render(Page("T", [entry(found)]))
    assert "nothing found" in page
    assert ">none<" in page


def test_pictures_of_a_long_video_are_few_and_spread_over_it():
    sides = [0] * 100 + [10 + index % 7 for index in range(800)] + [0] * 100
    found = gather(sides, seconds=0.04)
    numbers = [each.number for each in found.thumbnails]
    assert 6 <= len(numbers) <= 12
    assert numbers == sorted(numbers)
    assert max(np.diff(numbers)) < 260
    assert min(numbers) >= 101
    assert max(numbers) <= 900


def test_bars_of_the_timeline_stand_where_the_findings_are_and_lead_to_pictures():
    found = gather([0] * 50 + [10] * 50, seconds=0.1)
    bars = timeline(found)
    assert len(bars) == 50
    assert bars[0].x == pytest.approx(500)
    assert bars[-1].x + bars[-1].width == pytest.approx(1000)
    assert {bar.height for bar in bars} == {100}
    pictures = {each.number for each in found.thumbnails}
    assert {bar.target for bar in bars} <= pictures
    assert bars[0].text == "frame 51, 0:05.0: 100 px"


def test_a_short_finding_in_a_long_video_is_not_lost_between_bars():
    sides = [0] * 10_000
    sides[7_777] = 12
    (bar,) = timeline(gather(sides, seconds=0.04))
    assert bar.height == 100
    assert bar.x <= 777.7 <= bar.x + bar.width
    assert bar.target == 7_778


def test_clock_shows_minutes_and_seconds():
    assert clock(0) == "0:00.0"
    assert clock(75.26) == "1:15.3"
    assert clock(59.96) == "1:00.0"
    assert clock(None) == ""


def test_text_of_others_is_escaped():
    nasty = "<script>alert(1)</script>"
    page = render(
        Page(
            nasty,
            [replace(entry(gather([3])), name=nasty, group=nasty, warnings=(nasty,))],
            statuses={"failed": 1},
            reasons={"corrupt": 1},
            failures=[Failure(nasty, "corrupt", nasty)],
            facts=[(nasty, nasty)],
        )
    )
    assert nasty not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("burned_in", "text"),
    [(True, "May show names."), (None, "Some sources do not say"), (False, None)],
)
def test_burned_in_text_is_warned_of(burned_in, text):
    page = render(Page("T", [entry(gather([3]), burned_in=burned_in)]))
    warned = [each for each in ("May show names.", "Some sources do not say") if each in page]
    assert warned == ([text] if text else [])


def test_entry_survives_json():
    before = entry(gather([0, 4, 9], seconds=0.1), spacing_mm=(0.1, 0.2), warnings=("w",))
    after = Entry.from_dict(json.loads(json.dumps(before.to_dict())))
    assert after == before


def test_images_of_one_folder_share_a_row():
    parts = [
        Entry(f"ward/{n}.png", "ward", "images", gather([side])) for n, side in enumerate([0, 5, 3])
    ]
    other = Entry("x/1.png", "x", "images", gather([2]))
    rows = by_group([*parts, other])
    assert [row.name for row in rows] == ["ward", "x/1.png"]
    combined = rows[0].findings
    assert (combined.frames, combined.frames_with_findings, combined.largest_px) == (3, 2, 25)
    assert combined.areas_px == (0, 25, 9)
    assert [each.number for each in combined.thumbnails] == [2, 3]


def test_a_page_without_any_series_says_so():
    assert "No series was segmented." in render(Page("T", []))


def test_page_stays_small_however_many_series_there_are():
    found = gather([30] * 8)
    entries = [Entry(f"s{n}", f"s{n}", "stack", found) for n in range(700)]
    assert render(Page("T", entries)).count("<img") == 600
